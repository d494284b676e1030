// Logits of the lightning indexer: out[i, j] = scale[j] · Σ_h weight[i, h] · relu(q[i, h] · key[j])
// for the keys j of token i's window. Keys lie across the lanes, so relu, weights and the sum over
// heads are vector operations and a logit depends on its token and key alone: q · key is one chain
// over the dimension (k = 1, 0, 3, 2, …), or matrix tiles' (oi_tiles.h), heads are added in order.
// One kernel serves keys in rows and keys in pages.
#include "columns.h"

// What the driver sets: Q_TYPE, KV_TYPE (CODES_…), WEIGHT_BF16, OUT_BF16, PAGED, DOT_PAYS, and
// MOST_K, a multiple of 32 that is at least the dimension.
#if OUT_BF16
typedef uint16_t out_t;
#else
typedef float out_t;
#endif

enum {
  // Vectors of keys in a tile. Pages come in splits of 256 keys, which three would not divide.
#if defined(OI_TILES)
  VECS_K = 2,
#else
  VECS_K = PAGED ? 2 : 3,
#endif
  TILE_KEYS = VECS_K * OI_VF,
#if defined(OI_TILES)
  HEAD_TILE = 16,
#elif defined(__aarch64__) || defined(__AVX512F__)
  HEAD_TILE = 8,  // accumulators: this many times VECS_K
#else
  HEAD_TILE = 4,
#endif
  // Heads that meet all tiles before the next do: their panel stays in the first cache.
#if defined(OI_TILES)
  HEAD_BLOCK = 32,
#else
  HEAD_BLOCK = 16,
#endif
  ROW_WORDS = MOST_K / WORD_K,     // of a head's panel, and steps of a tile
  TILE_WORDS = ROW_WORDS * TILE_KEYS,
};

// Memory of a thread: panels of one token's heads and of a block of keys.
typedef struct {
  const params_t *p;
  uint32_t *q;     // rows of ROW_WORDS, heads of zeros up to a full tile behind them
  float *weights;  // of the heads
  uint32_t *keys;  // tiles of TILE_WORDS
  float *scales;   // of the block's keys
  float *sums;     // of the token's heads so far, for the block's keys
  int64_t sequence;
  int64_t table_row;  // the sequence's pages
  int64_t first;  // key of the first tile
} unit_t;

// The first token of a sequence: they have the same number each, or begin where `runs` says.
static inline int64_t first_token(const params_t *p, int64_t sequence) {
  return p->runs == NULL ? sequence * p->tokens : ((const int32_t *)p->runs)[sequence];
}

// The keys that token `t` (of all sequences) sees, and the key that column 0 of its row stands for.
typedef struct {
  int64_t from, to, origin;
} window_t;

static window_t window_of(const params_t *p, int64_t t) {
  int64_t start = p->starts == NULL ? 0 : ((const int32_t *)p->starts)[t];
  int64_t end = ((const int32_t *)p->ends)[t];
  window_t w = {oi_max(0, start), oi_min(p->keys, end), p->compressed ? start : 0};
  if (w.to < w.from) w.to = w.from;
  return w;
}

// Codes and scale of a key: a float for e4m3, four ue8m0 for e2m1.
typedef struct {
  const uint8_t *codes, *scale;
} key_place;

static inline key_place key_at(const unit_t *u, int64_t j) {
  const params_t *p = u->p;
#if PAGED
  int64_t page = ((const int32_t *)p->table)[u->table_row * p->table_row + j / p->page_keys];
  const uint8_t *at = (const uint8_t *)p->kv + page * p->page_bytes;
  int64_t i = j % p->page_keys;
  return (key_place){at + i * p->kv_row, at + p->page_keys * p->kv_row + 4 * i};
#else
  return (key_place){(const uint8_t *)p->kv + j * p->kv_row,
                  (const uint8_t *)p->kv_scales + 4 * j * p->kv_scale_row};
#endif
}

// Words up to a whole step of matrix tiles that packing leaves undefined become zero; rows of words
// are `width` apart, and packing has done up to a multiple of `whole` k.
static void pad_step(const unit_t *u, uint32_t *to, int64_t width, int64_t whole) {
#if defined(OI_TILES)
  int64_t from = oi_ceil_div(u->p->dim, whole) * whole / 2 * width;
  int64_t end = oi_ceil_div(u->p->dim, 32) * 16 * width;
  if (from < end) memset(to + from, 0, (size_t)(end - from) * sizeof *to);
#endif
  (void)u, (void)to, (void)width, (void)whole;
}

// Tile `t` of the block; keys from `end` on are not read, their lanes repeat the last one before.
static void pack_tile(const unit_t *u, int64_t t, int64_t end) {
  const params_t *p = u->p;
  for (int v = 0; v < VECS_K; v++) {
    const uint8_t *rows[OI_VF];
    uint32_t scales[OI_VF];
    for (int i = 0; i < OI_VF; i++) {
      int64_t j = u->first + t * TILE_KEYS + v * OI_VF + i;
      key_place key = key_at(u, oi_min(j, end - 1));
      rows[i] = key.codes;
      memcpy(&scales[i], key.scale, 4);
    }
    if (KV_TYPE == CODES_E4M3) {
      memcpy(u->scales + t * TILE_KEYS + v * OI_VF, scales, sizeof scales);
    }
    pack_columns(KV_TYPE, u->keys + t * TILE_WORDS + v * OI_VF, TILE_KEYS, rows, p->dim,
                 vu_load(scales));
  }
  pad_step(u, u->keys + t * TILE_WORDS, TILE_KEYS, KV_TYPE == CODES_E4M3 ? 4 : 8);
}

static void pack_token(const unit_t *u, int64_t t) {
  const params_t *p = u->p;
  int64_t token = p->runs == NULL ? t - u->sequence * p->tokens : t;
  int64_t sequence = p->runs == NULL ? u->sequence : 0;
  const uint8_t *q = (const uint8_t *)p->q + sequence * p->q_sequence + token * p->q_token;
  const uint32_t *scales = p->q_scales;
  if (scales != NULL) scales += sequence * p->qs_sequence + token * p->qs_token;
  for (int64_t h = 0; h < p->heads; h++) {
    pack_row(Q_TYPE, u->q + h * ROW_WORDS, q + h * p->q_head, p->dim,
             scales == NULL ? 0 : scales[h * p->qs_head]);
    pad_step(u, u->q + h * ROW_WORDS, 1, OI_VF);
#if WEIGHT_BF16
    u->weights[h] = bf16_to_f32(((const uint16_t *)p->weights)[t * p->weight_row + h]);
#else
    u->weights[h] = ((const float *)p->weights)[t * p->weight_row + h];
#endif
  }
}

// Heads that fill up the last tile: they add 0 · relu(0).
static void pad_heads(const unit_t *u) {
  int64_t from = u->p->heads, to = oi_ceil_div(from, HEAD_TILE) * HEAD_TILE;
  memset(u->q + from * ROW_WORDS, 0, (size_t)(to - from) * ROW_WORDS * sizeof *u->q);
  for (int64_t h = from; h < to; h++) u->weights[h] = 0;
}

#if defined(OI_TILES)
enum { PRODUCTS = 256 };  // of a tile: sixteen heads by sixteen keys

// Sixteen or 32 heads against a tile of keys; their products, a row a head.
INLINE void multiply_heads(int lefts, int64_t steps, const uint32_t *q, const uint32_t *keys,
                           float *products) {
  oi_tile_zero(0);
  oi_tile_zero(1);
  oi_tile_zero(2);
  oi_tile_zero(3);
  for (int64_t s = 0; s < steps; s++, q += 16, keys += 16 * TILE_KEYS) {
    oi_tile_load(4, q, 4 * ROW_WORDS);
    oi_tile_load(6, keys, 4 * TILE_KEYS);
    oi_tile_dot_bf16(0, 4, 6);
    oi_tile_load(7, keys + 16, 4 * TILE_KEYS);
    oi_tile_dot_bf16(1, 4, 7);
    if (lefts == 1) continue;
    oi_tile_load(5, q + 16 * ROW_WORDS, 4 * ROW_WORDS);
    oi_tile_dot_bf16(2, 5, 6);
    oi_tile_dot_bf16(3, 5, 7);
  }
  oi_tile_store(0, products, 64);
  oi_tile_store(1, products + PRODUCTS, 64);
  if (lefts == 1) return;
  oi_tile_store(2, products + 2 * PRODUCTS, 64);
  oi_tile_store(3, products + 3 * PRODUCTS, 64);
}

// Adds Σ weight · relu(product) of heads [h, end) to the sums of tile `t`; with the last of them
// the sums are logits.
static void reduce_heads(const unit_t *u, int64_t t, int64_t h, int64_t end,
                         const float *products) {
  float *sums = u->sums + t * TILE_KEYS;
  const float *weights = u->weights + h;
  vf sum[VECS_K];
  for (int v = 0; v < VECS_K; v++) sum[v] = h == 0 ? vf_zero() : vf_load(sums + v * OI_VF);
  for (int64_t i = 0; i < end - h; i += 16) {
    UNROLL
    for (int r = 0; r < 16; r++) {
      for (int v = 0; v < VECS_K; v++) {
        vf x = vf_load(products + (i / 8 + v) * PRODUCTS + r * OI_VF);
        // The zero comes first, so that a NaN stays one. Heads that fill up a tile weigh nothing.
        sum[v] = vf_fma(vf_set(weights[i + r]), vf_max(vf_zero(), x), sum[v]);
      }
    }
  }
  for (int v = 0; v < VECS_K; v++) {
    if (KV_TYPE == CODES_E4M3 && end == u->p->heads) {
      sum[v] *= vf_load(u->scales + t * TILE_KEYS + v * OI_VF);
    }
    vf_store(sums + v * OI_VF, sum[v]);
  }
}

// Heads [h, end) of the token against tiles [first, last); a tile's products are added up while the
// next one's are still on their way.
static void add_tiles(const unit_t *u, int64_t first, int64_t last, int64_t h, int64_t end) {
  _Alignas(64) float products[2][4 * PRODUCTS];
  int64_t steps = oi_ceil_div(u->p->dim, 32);
  const uint32_t *q = u->q + h * ROW_WORDS;
  for (int64_t t = first; t < last; t++) {
    const uint32_t *keys = u->keys + t * TILE_WORDS;
    if (end - h > 16) multiply_heads(2, steps, q, keys, products[t & 1]);
    else multiply_heads(1, steps, q, keys, products[t & 1]);
    if (t > first) reduce_heads(u, t - 1, h, end, products[(t - 1) & 1]);
  }
  if (last > first) reduce_heads(u, last - 1, h, end, products[(last - 1) & 1]);
}
#else
// sum += Σ weight · relu(q · key) over `heads` heads.
INLINE void add_heads(int heads, int64_t steps, const uint32_t *q, const float *weights,
                      const uint32_t *keys, vf sum[VECS_K]) {
  vf acc[HEAD_TILE][VECS_K];
  UNROLL
  for (int h = 0; h < heads; h++) {
    UNROLL
    for (int v = 0; v < VECS_K; v++) acc[h][v] = vf_zero();
  }
  for (int64_t s = 0; s < steps; s++) {
    vu x[VECS_K];
    UNROLL
    for (int v = 0; v < VECS_K; v++) x[v] = vu_load(keys + s * TILE_KEYS + v * OI_VF);
    UNROLL
    for (int h = 0; h < heads; h++) {
      UNROLL
      for (int v = 0; v < VECS_K; v++) acc[h][v] = word_fma(q[h * ROW_WORDS + s], x[v], acc[h][v]);
    }
  }
  UNROLL
  for (int h = 0; h < heads; h++) {
    UNROLL
    for (int v = 0; v < VECS_K; v++) {
      // The zero comes first, so that a NaN stays one.
      sum[v] = vf_fma(vf_set(weights[h]), vf_max(vf_zero(), acc[h][v]), sum[v]);
    }
  }
}

// Heads [h, end) of the token against tile `t`; with the last of them the sums are logits.
static __attribute__((noinline)) void add_tile(const unit_t *u, int64_t t, int64_t h, int64_t end) {
  const uint32_t *keys = u->keys + t * TILE_WORDS;
  float *sums = u->sums + t * TILE_KEYS;
  int64_t heads = u->p->heads, steps = oi_ceil_div(u->p->dim, 2) * 2 / WORD_K;
  vf sum[VECS_K];
  for (int v = 0; v < VECS_K; v++) sum[v] = h == 0 ? vf_zero() : vf_load(sums + v * OI_VF);
  // One or two heads are faster one by one than in a tile of zeros.
  for (; h + 2 < end; h += HEAD_TILE) {
    add_heads(HEAD_TILE, steps, u->q + h * ROW_WORDS, u->weights + h, keys, sum);
  }
  for (; h < end; h++) add_heads(1, steps, u->q + h * ROW_WORDS, u->weights + h, keys, sum);
  for (int v = 0; v < VECS_K; v++) {
    if (KV_TYPE == CODES_E4M3 && end == heads) {
      sum[v] *= vf_load(u->scales + t * TILE_KEYS + v * OI_VF);
    }
    vf_store(sums + v * OI_VF, sum[v]);
  }
}

static void add_tiles(const unit_t *u, int64_t first, int64_t last, int64_t h, int64_t end) {
  for (int64_t t = first; t < last; t++) add_tile(u, t, h, end);
}
#endif

INLINE void store_logits(out_t *to, const float *logits) {
  for (int v = 0; v < VECS_K; v++) {
    vf x = vf_load(logits + v * OI_VF);
#if OUT_BF16
    vf_store_bf16(to + v * OI_VF, x);
#else
    vf_store(to + v * OI_VF, x);
#endif
  }
}

static void fill_minus_infinity(out_t *row, int64_t from, int64_t to) {
  for (int64_t i = from; i < to; i++) {
#if OUT_BF16
    row[i] = 0xff80;
#else
    row[i] = -__builtin_inff();
#endif
  }
}

// The token's logits of the keys [from, to), all of them in the block.
static void run_token(const unit_t *u, int64_t t, window_t w, int64_t from, int64_t to) {
  const params_t *p = u->p;
  out_t *row = (out_t *)p->out + t * p->out_row - w.origin;
  pack_token(u, t);
  int64_t first = (from - u->first) / TILE_KEYS, last = oi_ceil_div(to - u->first, TILE_KEYS);
  for (int64_t h = 0; h < p->heads; h += HEAD_BLOCK) {
    int64_t end = oi_min(p->heads, h + HEAD_BLOCK);
    add_tiles(u, first, last, h, end);
  }
  if (p->heads == 0) memset(u->sums, 0, (size_t)(last * TILE_KEYS) * sizeof(float));
  for (int64_t i = first; i < last; i++) {
    const float *logits = u->sums + i * TILE_KEYS;
    int64_t key = u->first + i * TILE_KEYS;
    if (key >= from && key + TILE_KEYS <= to) {
      store_logits(row + key, logits);
      continue;
    }
    out_t edge[TILE_KEYS];
    store_logits(edge, logits);
    int64_t begin = oi_max(from, key), end = oi_min(to, key + TILE_KEYS);
    memcpy(row + begin, edge + (begin - key), (size_t)(end - begin) * sizeof(out_t));
  }
}

// Tokens [t0, t1) of one sequence against the keys [from, to).
static void run_unit(unit_t *u, int64_t t0, int64_t t1, int64_t from, int64_t to) {
  const params_t *p = u->p;
  int64_t low = to, high = from;
  for (int64_t t = t0; t < t1; t++) {
    window_t w = window_of(p, t);
    int64_t a = oi_max(from, w.from), b = oi_min(to, w.to);
    if (a >= b) continue;
    low = oi_min(low, a);
    high = oi_max(high, b);
  }
  if (low >= high) return;
  u->first = low;
  int64_t tiles = oi_ceil_div(high - low, TILE_KEYS);
  for (int64_t i = 0; i < tiles; i++) pack_tile(u, i, high);
  for (int64_t t = t0; t < t1; t++) {
    window_t w = window_of(p, t);
    int64_t a = oi_max(from, w.from), b = oi_min(to, w.to);
    if (a < b) run_token(u, t, w, a, b);
  }
}

// Columns of a row outside its window.
static void clean_row(const params_t *p, int64_t t) {
  window_t w = window_of(p, t);
  out_t *row = (out_t *)p->out + t * p->out_row;
  int64_t from = w.from - w.origin, to = w.to - w.origin;
  if (to <= from) {
    fill_minus_infinity(row, 0, p->width);
    return;
  }
  fill_minus_infinity(row, 0, from);
  fill_minus_infinity(row, to, p->width);
}

#if PAGED
// Part `i` of the schedule: from its (sequence, split of keys) to the next part's.
static void run_part(unit_t *u, int64_t i) {
  const params_t *p = u->p;
  const int32_t *at = (const int32_t *)p->schedule + 2 * i;
  int64_t sequence = at[0], split = at[1];
  while (sequence < p->sequences && (sequence < at[2] || (sequence == at[2] && split < at[3]))) {
    int64_t t0 = first_token(p, sequence), t1 = first_token(p, sequence + 1);
    int64_t longest = 0, row = t0;
    for (int64_t t = t0; t < t1; t++) {
      int32_t length = ((const int32_t *)p->ends)[t];
      if (length <= longest) continue;
      longest = length;
      row = t;
    }
    if (split * p->block_keys >= longest) {
      sequence++;
      split = 0;
      continue;
    }
    u->sequence = sequence;
    // Of tokens with a row of the table each, the longest one's names all pages.
    u->table_row = p->runs == NULL ? sequence : row;
    int64_t from = split * p->block_keys;
    run_unit(u, t0, t1, from, oi_min(longest, from + p->block_keys));
    split++;
  }
}
#else
// Part `i` of blocks of keys times blocks of tokens.
static void run_part(unit_t *u, int64_t i) {
  const params_t *p = u->p;
  int64_t blocks = oi_ceil_div(p->keys, p->block_keys);
  int64_t from = i % blocks * p->block_keys, t0 = i / blocks * p->block_tokens;
  run_unit(u, t0, oi_min(p->tokens, t0 + p->block_tokens), from,
           oi_min(p->keys, from + p->block_keys));
}
#endif

void mqa_logits(const params_t *p, oi_ctx *ctx) {
  int64_t tiles = oi_ceil_div(p->block_keys, TILE_KEYS);
  int64_t heads = oi_ceil_div(p->heads, HEAD_TILE) * HEAD_TILE;
  unit_t u = {.p = p, .keys = ctx->scratch};
  u.q = u.keys + tiles * TILE_WORDS;
  u.scales = (float *)(u.q + heads * ROW_WORDS);
  u.sums = u.scales + tiles * TILE_KEYS;
  u.weights = u.sums + tiles * TILE_KEYS;
  pad_heads(&u);
#if defined(OI_TILES)
  oi_tiles_begin();
#endif
  int64_t rows = p->clean ? first_token(p, p->sequences) : 0;
  for (int64_t i; (i = oi_take(ctx, 1)) < p->parts + rows;) {
    if (i < p->parts) run_part(&u, i);
    else clean_row(p, i - p->parts);
  }
#if defined(OI_TILES)
  oi_tiles_end();
#endif
}
