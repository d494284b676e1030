// How matrix tiles compute a unit of work. The right operand is packed for a block of K and stays
// in the second-level cache; the left one passes by, a pair of tiles over a panel of K at a time,
// as it lies in memory where it is bf16 along K, else packed. While one panel is multiplied the
// next one is packed, or fetched, in small shares between the products, so that memory works all
// the time. None of this changes a sum (tile_sums.h).
#pragma once
#include "epilogue.h"
#include "few_rows.h"
#include "segments.h"
#include "tile_sums.h"

enum {
  LEFT_CODES = LEFT_IS_B ? B_CODES : A_CODES,
  RIGHT_CODES = LEFT_IS_B ? A_CODES : B_CODES,
  LEFT_K_MAJOR = LEFT_IS_B ? 1 : A_K_MAJOR,
  RIGHT_K_MAJOR = LEFT_IS_B ? A_K_MAJOR : 0,
  LEFT_AS_IT_IS = LEFT_CODES == TYPE_BF16 && LEFT_K_MAJOR,
  // The right operand is multiplied in blocks of so many k, or of several times as many where few
  // columns leave room for them: BLOCK_BYTES hold a block of 192 rows of A, or 512 columns of B.
  PANEL_K = LEFT_IS_B ? 2048 : 1024,
  PANEL_BYTES = PANEL_K / STEP_SIZE * STEP_TILES,
  BLOCK_BYTES = 1 << 20,
  // k of a left panel. Two of packed codes stay in the first-level cache beside all else.
  LEFT_K = SCALED && !LEFT_AS_IT_IS ? PACKED_ROW : PANEL_K,
  LEFT_BYTES = LEFT_K / STEP_SIZE * STEP_TILES,
  FEW_PASSES = 2,
  FETCH_LINES = 4,    // of a row at a time
  FETCH_AHEAD = 4,    // times FETCH_LINES
};

// A panel of the left operand: which pair of tiles, which block of the right operand's K, and which
// part of that.
typedef struct {
  int64_t pair, block, part;
} place_t;

typedef struct {
  int64_t slice;  // of the matrices whose products are summed
  int64_t k, len;
} block_t;

typedef struct {
  const params_t *p;
  segment_t segment;
  int64_t row, rows;  // of the slab
  int64_t col, cols;  // of B
  int64_t right_k;    // k of a block of the right operand
  int64_t blocks;     // of those, in all matrices that are summed
  int64_t left_pairs, right_pairs;
  float *sums;  // of the strip in hand, in all_sums: quads, for each left pair all right ones
  float *all_sums;
  float *out;  // sixteen rows of sums
  float *run;  // quads of two runs
  char *right;
  float *right_scales;
  char *left[2];
  float *left_scales[2];
  int kept;     // the right operand's memory has room for all of K,
  int along_k;  // and so has the cache: left panels may follow each other along K
  int known;    // it was packed for known_segment
  segment_t known_segment;
} unit_t;

// The left panel that is being made ready.
typedef struct {
  place_t place;
  block_t block;
  left_t left;
  const char *from;   // its first element
  const char *later;  // that of the panel after it, or NULL
  const char *here;   // that of the panel before it, of which `here_runs` are still to be fetched
  int64_t here_runs, here_from;
  int64_t ld, rows;  // `ld` in bytes
  char *to;          // where it is packed, or NULL if it is only fetched
  int64_t done, items, share;
} coming_t;

static block_t right_block(const unit_t *u, int64_t i) {
  int64_t slice = 0, k = i * u->right_k;
  if (u->p->slices > 1) {
    int64_t per = oi_ceil_div(u->segment.k, u->right_k);
    slice = i / per;
    k = i % per * u->right_k;
  }
  return (block_t){slice, k, oi_min(u->right_k, u->segment.k - k)};
}

static block_t left_block(const unit_t *u, place_t at) {
  block_t b = right_block(u, at.block);
  int64_t from = at.part * LEFT_K;
  return (block_t){b.slice, b.k + from, oi_min(LEFT_K, b.len - from)};
}

// Left panels in the order they are multiplied; false after the last. Along K is what memory likes.
static int next_place(const unit_t *u, place_t *at) {
  if ((at->part + 1) * LEFT_K < right_block(u, at->block).len) {
    at->part++;
    return 1;
  }
  at->part = 0;
  if (u->along_k) {
    if (++at->block < u->blocks) return 1;
    at->block = 0;
    return ++at->pair < u->left_pairs;
  }
  if (++at->pair < u->left_pairs) return 1;
  at->pair = 0;
  return ++at->block < u->blocks;
}

// ---- operands -----------------------------------------------------------------------------------
// Row `i` of A, or column of B, of the unit, at k of a block.
static const char *a_place(const unit_t *u, int64_t i, block_t b) {
  const params_t *p = u->p;
  int64_t step = A_K_MAJOR ? 1 : p->a_k, row = A_K_MAJOR ? u->segment.a_row : 1;
  int64_t at = u->segment.a + b.slice * p->a_slice + (u->row + i) * row + b.k * step;
  return element_at(A_CODES, p->a, at);
}
static const char *b_place(const unit_t *u, int64_t j, block_t b) {
  const params_t *p = u->p;
  int64_t step = B_K_MAJOR ? 1 : p->b_k, row = B_K_MAJOR ? u->segment.b_row : 1;
  int64_t at = u->segment.b + b.slice * p->b_slice + (u->col + j) * row + b.k * step;
  return element_at(B_CODES, p->b, at);
}
// Bytes between rows where rows lie along K, between k where they do not.
static int64_t a_ld(const unit_t *u) {
  return byte_step(A_CODES, A_K_MAJOR ? u->segment.a_row : u->p->a_k);
}
static int64_t b_ld(const unit_t *u) {
  return byte_step(B_CODES, B_K_MAJOR ? u->segment.b_row : u->p->b_k);
}

// Scales of `count` rows of A from `i` on at k, one if it has none; 0 for the rest of 32.
static void a_scales(const unit_t *u, float to[32], int64_t i, int64_t count, int64_t k) {
  const params_t *p = u->p;
  const float *at = (const float *)p->sa + u->segment.sa;
  if (A_TYPE == TYPE_E4M3) at += k / A_GRAIN_K * p->sa_k;
  for (int64_t r = 0; r < 32; r++) {
    float one = A_TYPE == TYPE_E4M3 && r < count ? at[(u->row + i + r) / A_GRAIN_M * p->sa_row] : 1;
    to[r] = r < count ? one : 0;
  }
}
static void b_scales(const unit_t *u, float to[32], int64_t j, int64_t count, int64_t k) {
  const params_t *p = u->p;
  const float *at = (const float *)p->sb + u->segment.sb;
  if (B_TYPE == TYPE_E4M3) at += k / B_GRAIN_K * p->sb_k;
  int64_t first = u->col + j;
  if (B_TYPE == TYPE_E4M3 && first / B_GRAIN_N == (first + 31) / B_GRAIN_N) {
    vf one = vf_set(at[first / B_GRAIN_N * p->sb_row]);
    vf_store(to, one);
    vf_store(to + 16, one);
    return;
  }
  for (int64_t r = 0; r < 32; r++) {
    float one = B_TYPE == TYPE_E4M3 && r < count ? at[(first + r) / B_GRAIN_N * p->sb_row] : 1;
    to[r] = r < count ? one : 0;
  }
}

// Bytes of a pair of right tiles over a block.
static int64_t pair_bytes(const unit_t *u) { return u->right_k / STEP_SIZE * STEP_TILES; }

static char *right_tiles(const unit_t *u, int64_t block, int64_t pair) {
  int64_t index = u->kept ? block * u->right_pairs + pair : pair;
  return u->right + index * pair_bytes(u);
}
static float *right_scales(const unit_t *u, int64_t block, int64_t pair) {
  int64_t index = u->kept ? block * u->right_pairs + pair : pair;
  return u->right_scales + index * (u->right_k / RUN_K * 32);
}

static void pack_right(const unit_t *u, int64_t index) {
  block_t b = right_block(u, index);
  int64_t columns = LEFT_IS_B ? u->rows : u->cols, ld = LEFT_IS_B ? a_ld(u) : b_ld(u);
  for (int64_t pair = 0; pair < u->right_pairs; pair++) {
    char *to = right_tiles(u, index, pair);
    if (RIGHT_K_MAJOR) {
      for (int64_t j = 32 * pair; j < oi_min(columns, 32 * pair + 32); j += 16, to += TILE) {
        const char *from = LEFT_IS_B ? a_place(u, j, b) : b_place(u, j, b);
        for (int64_t k = 0; k < b.len; k += 64) {
          pack_right_rows(RIGHT_CODES, to + k / STEP_SIZE * STEP_TILES,
                          from + byte_step(RIGHT_CODES, k), ld, oi_min(16, columns - j),
                          oi_min(64, b.len - k));
        }
      }
    }
    for (int64_t k = 0; SCALED && k < b.len; k += RUN_K) {
      float *scales = right_scales(u, index, pair) + k / RUN_K * 32;
      int64_t count = oi_min(32, columns - 32 * pair);
      if (LEFT_IS_B) a_scales(u, scales, 32 * pair, count, b.k + k);
      else b_scales(u, scales, 32 * pair, count, b.k + k);
    }
  }
  if (RIGHT_K_MAJOR) return;
  const char *from = LEFT_IS_B ? a_place(u, 0, b) : b_place(u, 0, b);
  for (int64_t k = 0; k < b.len; k += STEP_SIZE) {
    pack_right_step(RIGHT_CODES, right_tiles(u, index, 0) + k / STEP_SIZE * STEP_TILES,
                    pair_bytes(u), from + k * ld, ld, columns,
                    oi_min(STEP_SIZE, b.len - k));
  }
}

// ---- the left operand ---------------------------------------------------------------------------
static const char *left_place(const unit_t *u, place_t at) {
  block_t b = left_block(u, at);
  return LEFT_IS_B ? b_place(u, 32 * at.pair, b) : a_place(u, 32 * at.pair, b);
}

static int64_t fetch_runs(block_t b) {
  return oi_ceil_div(byte_step(LEFT_CODES, b.len), 64 * FETCH_LINES);
}

// Starts to make a panel ready in buffer `side`, while the one `before` it is multiplied; `calls`
// is how often there will be an occasion.
static void begin_panel(const unit_t *u, coming_t *c, place_t at, int side, int64_t calls,
                        const coming_t *before) {
  block_t b = left_block(u, at);
  int64_t all = LEFT_IS_B ? u->cols : u->rows, rows = oi_min(32, all - 32 * at.pair);
  int64_t steps = oi_ceil_div(b.len, STEP_SIZE);
  *c = (coming_t){.place = at, .block = b, .rows = rows, .from = left_place(u, at)};
  c->ld = LEFT_IS_B ? b_ld(u) : a_ld(u);
  c->left = (left_t){.tiles = rows > 16 ? 2 : 1, .scales = u->left_scales[side]};
  for (int64_t k = 0; SCALED && k < b.len; k += RUN_K) {
    float *scales = u->left_scales[side] + k / RUN_K * 32;
    if (LEFT_IS_B) b_scales(u, scales, 32 * at.pair, rows, b.k + k);
    else a_scales(u, scales, 32 * at.pair, rows, b.k + k);
  }
  place_t after = at;
  if (next_place(u, &after)) c->later = left_place(u, after);
  char *packed = u->left[side];
  if (LEFT_AS_IT_IS && rows % 16 == 0) {
    c->left.at = c->from;
    c->left.row = c->ld;
    c->left.step = 64;
    c->left.second = 16 * c->ld;
    c->left.steps = b.len / STEP_SIZE;
    if (c->left.steps < steps) {
      int64_t k = c->left.steps * STEP_SIZE;
      c->left.tail = packed;
      for (int64_t r = 0; r < rows; r++) {
        pack_left_run(LEFT_CODES, packed, r, c->from + r * c->ld + byte_step(LEFT_CODES, k),
                      b.len - k);
      }
    }
    int64_t runs = fetch_runs(b);
    c->items = runs * rows;
    if (u->right_pairs <= FEW_PASSES && before != NULL && before->rows == rows) {
      // The first pass waits for memory: what it wants soon is fetched, not what comes a panel
      // later.
      int64_t all = fetch_runs(before->block);
      c->here = before->from;
      c->here_runs = oi_max(0, all - FETCH_AHEAD);
      c->here_from = oi_min(all, FETCH_AHEAD) * (64 * FETCH_LINES);
    }
  } else {
    c->to = packed;
    c->left.at = packed;
    c->left.row = 64;
    c->left.step = STEP_TILES;
    c->left.second = TILE;
    c->left.steps = steps;
    c->items = LEFT_K_MAJOR ? c->left.tiles * 16 : steps;
  }
  c->share = oi_ceil_div(c->items, calls);
}

// Lines of one row, in the order the products want them.
INLINE void fetch_item(const coming_t *c, int64_t run, int64_t row) {
  const char *line = run < c->here_runs ? c->here + c->here_from + run * (64 * FETCH_LINES)
                                        : c->from + (run - c->here_runs) * (64 * FETCH_LINES);
  line += row * c->ld;
  UNROLL
  for (int n = 0; n < FETCH_LINES; n++) __builtin_prefetch(line + 64 * n, 0, 2);
}

// A row, or a step where rows are adjacent.
INLINE void pack_item(const coming_t *c, int64_t i) {
  if (!LEFT_K_MAJOR) {
    int64_t k = i * STEP_SIZE;
    pack_left_step(LEFT_CODES, c->to + i * STEP_TILES, c->from + k * c->ld, c->ld, c->rows,
                   oi_min(STEP_SIZE, c->block.len - k));
    return;
  }
  const char *from = c->from + i * c->ld;
  int64_t len = i < c->rows ? c->block.len : 0;
  if (len == PACKED_ROW) {
    pack_left_row(LEFT_CODES, c->to, i, from, c->later == NULL ? NULL : c->later + i * c->ld);
    return;
  }
  for (int64_t k = 0; k < c->block.len; k += 64) {
    int64_t count = oi_max(0, oi_min(64, len - k));
    char *to = c->to + k / STEP_SIZE * STEP_TILES;
    pack_left_run(LEFT_CODES, to, i, count > 0 ? from + byte_step(LEFT_CODES, k) : from, count);
    if (count <= STEP_SIZE && k + STEP_SIZE < c->block.len) {
      pack_left_run(LEFT_CODES, to + STEP_TILES, i, from, 0);
    }
  }
}

// Does some of what is to be done.
static __attribute__((noinline)) void advance(coming_t *c, int64_t count) {
  int64_t end = oi_min(c->items, c->done + count), i = c->done;
  if (i >= end) return;
  c->done = end;
  if (c->to != NULL) {
    for (; i < end; i++) pack_item(c, i);
    return;
  }
  int64_t run = i / c->rows, row = i % c->rows;
  for (; i < end; i++) {
    fetch_item(c, run, row);
    if (++row == c->rows) row = 0, run++;
  }
}

// ---- products
// ----------------------------------------------------------------------------------- A pair of
// left tiles times a pair of right ones, over a panel. `first` says that no sums are there.
INLINE void multiply_quad(int lefts, int rights, const left_t *l, const right_t *r, int first,
                          float *sums, float *run, coming_t *next) {
  int64_t steps = l->steps + (l->tail != NULL);
  if (!SCALED) {
    if (first) clear_tiles();
    else load_tiles(lefts, rights, sums);
  }
  for (int64_t s = 0, i = 0; s < steps; s += RUN_STEPS, i++) {
    if (SCALED) clear_tiles();
    int64_t count = oi_min(RUN_STEPS, l->steps - s);
    if (count == RUN_STEPS) multiply_steps(lefts, rights, l, s, RUN_STEPS, r->at);
    else multiply_steps(lefts, rights, l, s, count, r->at);
    if (l->tail != NULL && s + RUN_STEPS >= steps) {
      left_t tail = {.at = l->tail, .row = 64, .second = TILE};
      multiply_steps(lefts, rights, &tail, 0, 1, r->at + l->steps * STEP_TILES);
    }
    if (next->done < next->items) advance(next, next->share);
    if (!SCALED) continue;
    // The sums of the run before are added while this one's products are still on their way.
    float *here = run + i % 2 * QUAD, *before = run + (i + 1) % 2 * QUAD;
    if (i > 0) {
      add_scaled(lefts, rights, before, l->scales + (i - 1) * 32, r->scales + (i - 1) * 32,
                 first && i == 1, sums);
    }
    store_tiles(lefts, rights, here);
    if (s + RUN_STEPS >= steps) {
      add_scaled(lefts, rights, here, l->scales + i * 32, r->scales + i * 32, first && i == 0,
                 sums);
    }
  }
  if (!SCALED) store_tiles(lefts, rights, sums);
}

static __attribute__((noinline)) void multiply_pairs(const left_t *l, const right_t *r, int first,
                                                     float *sums, float *run, coming_t *next) {
  if (l->tiles == 2 && r->tiles == 2) multiply_quad(2, 2, l, r, first, sums, run, next);
  else if (l->tiles == 2) multiply_quad(2, 1, l, r, first, sums, run, next);
  else if (r->tiles == 2) multiply_quad(1, 2, l, r, first, sums, run, next);
  else multiply_quad(1, 1, l, r, first, sums, run, next);
}

// One panel of the left operand against all of the right one.
static void multiply_panel(const unit_t *u, const coming_t *c, coming_t *next) {
  place_t at = c->place;
  int64_t columns = LEFT_IS_B ? u->rows : u->cols, from = at.part * LEFT_K;
  for (int64_t pair = 0; pair < u->right_pairs; pair++) {
    right_t right = {
        .at = right_tiles(u, at.block, pair) + from / STEP_SIZE * STEP_TILES,
        .scales = right_scales(u, at.block, pair) + from / RUN_K * 32,
        .tiles = columns - 32 * pair > 16 ? 2 : 1,
    };
    float *sums = u->sums + (at.pair * u->right_pairs + pair) * QUAD;
    multiply_pairs(&c->left, &right, at.block == 0 && at.part == 0, sums, u->run, next);
  }
  advance(next, next->items);
}

// Packs all of the right operand for the units that follow in the same rows, unless it is there.
static void keep_right(unit_t *u) {
  if (u->known && memcmp(&u->known_segment, &u->segment, sizeof u->segment) == 0) return;
  for (int64_t i = 0; i < u->blocks; i++) pack_right(u, i);
  u->known = 1;
  u->known_segment = u->segment;
}

static void begin_strip(unit_t *u, int strip, int64_t col, int64_t cols) {
  u->col = col;
  u->cols = cols;
  int64_t rows = oi_ceil_div(u->rows, 32), columns = oi_ceil_div(cols, 32);
  u->left_pairs = LEFT_IS_B ? columns : rows;
  u->right_pairs = LEFT_IS_B ? rows : columns;
  u->sums = u->all_sums + strip * u->left_pairs * u->right_pairs * QUAD;
  int64_t room = oi_max(1, BLOCK_BYTES / PANEL_BYTES / u->right_pairs);
  u->right_k = oi_min(room, oi_max(1, oi_ceil_div(u->segment.k, PANEL_K))) * PANEL_K;
  u->blocks = u->p->slices * oi_ceil_div(u->segment.k, u->right_k);
  int64_t all = u->blocks * u->right_pairs * pair_bytes(u);
  u->kept = LEFT_IS_B && all <= u->p->panel_bytes;
  u->along_k = u->kept && all <= BLOCK_BYTES;
}

// ---- few rows
// -------------------------------------------------------------------------------------
// k of a row of A as few_rows.h takes it, and floats of one matrix's rows and of its runs' sums.
static int64_t few_k(const unit_t *u) { return oi_ceil_div(u->segment.k, 64) * 64; }
static int64_t few_runs(const unit_t *u) { return oi_ceil_div(u->segment.k, RUN_K); }
static int64_t few_a_floats(const unit_t *u) { return FEW_ROWS * (few_k(u) + few_runs(u)); }

// Whether the unit's rows are multiplied by vectors, which changes no bit.
static int is_few(const unit_t *u) {
  if (!FEW || u->rows > FEW_ROWS) return 0;
  int64_t floats = u->p->slices * few_a_floats(u) + FEW_ROWS * 16 * few_runs(u);
  return floats * (int64_t)sizeof(float) <= u->p->panel_bytes;
}

#if FEW
// A's rows, then the scales of their runs, matrix by matrix, for the units that follow.
static void keep_few(unit_t *u) {
  if (u->known && memcmp(&u->known_segment, &u->segment, sizeof u->segment) == 0) return;
  float *to = (float *)u->right;
  int64_t stride = few_k(u), runs = few_runs(u);
  for (int64_t slice = 0; slice < u->p->slices; slice++, to += few_a_floats(u)) {
    for (int64_t m = 0; m < FEW_ROWS; m++) {
      for (int64_t k = 0; k < stride; k += 64) {
        int64_t len = m < u->rows ? oi_min(64, u->segment.k - k) : 0;
        const char *from = a_place(u, m < u->rows ? m : 0, (block_t){slice, k, len});
        widen_run(from, len, to + m * stride + k);
      }
    }
    for (int64_t i = 0; SCALED && i < runs; i++) {
      float scales[32];
      a_scales(u, scales, 0, u->rows, i * RUN_K);
      memcpy(to + FEW_ROWS * stride + i * FEW_ROWS, scales, FEW_ROWS * sizeof(float));
    }
  }
  u->known = 1;
  u->known_segment = u->segment;
}

// sums (+)= each run's sums times the scales of its rows and columns.
static __attribute__((noinline)) void add_few_runs(const unit_t *u, int count, int64_t j,
                                                   int64_t columns, const float *a, int first,
                                                   const float *runs, float *sums) {
  for (int64_t i = 0; i < few_runs(u); i++, a += FEW_ROWS) {
    float of_columns[32];
    b_scales(u, of_columns, j, columns, i * RUN_K);
    const vf scales = vf_load(of_columns);
    for (int m = 0; m < count; m++, runs += 16) {
      vf scale = vf_set(a[m]) * scales, x = vf_load(runs);
      float *to = sums + 16 * m;
      vf_store(to, first && i == 0 ? x * scale : vf_fma_exact(x, scale, vf_load(to)));
    }
  }
}

static void multiply_few_rows(unit_t *u, int strip, int64_t col, int64_t cols) {
  u->col = col;
  u->cols = cols;
  keep_few(u);
  int count = FEW_COUNT((int)u->rows);
  float *runs = (float *)u->right + u->p->slices * few_a_floats(u);
  for (int64_t j = 0; j < cols; j += 16) {
    _Alignas(64) float sums[FEW_ROWS * 16] = {0};
    int64_t columns = oi_min(16, cols - j);
    const float *a = (const float *)u->right;
    for (int64_t slice = 0; slice < u->p->slices; slice++, a += few_a_floats(u)) {
      const char *b = b_place(u, j, (block_t){slice, 0, u->segment.k});
      few_as_tiles(count, b, b_ld(u), columns, u->segment.k, a, few_k(u),
                   SCALED ? RUN_STEPS : 0, SCALED ? runs : sums);
      if (SCALED) {
        add_few_runs(u, count, j, columns, a + FEW_ROWS * few_k(u), slice == 0, runs, sums);
      }
    }
    for (int64_t m = 0; m < u->rows; m++) {
      memcpy(u->out + m * SUM_STRIDE + strip * STRIP_COLS + j, sums + 16 * m, 64);
    }
  }
}
#endif

// The sums of columns [col, col + cols), the unit's first or second strip of them.
static void multiply_strip(unit_t *u, int strip, int64_t col, int64_t cols) {
#if FEW
  if (is_few(u)) {
    multiply_few_rows(u, strip, col, cols);
    return;
  }
#endif
  begin_strip(u, strip, col, cols);
  if (u->kept) keep_right(u);
  else u->known = 0;
  int64_t passes = LEFT_AS_IT_IS && u->right_pairs <= FEW_PASSES ? 1 : u->right_pairs;
  int64_t calls = passes * (LEFT_K / RUN_K);
  coming_t panels[2];
  int side = 0;
  begin_panel(u, &panels[0], (place_t){0}, 0, 1, NULL);
  if (panels[0].to != NULL) advance(&panels[0], panels[0].items);
  int64_t packed = -1;
  for (int more = 1; more; side = !side) {
    coming_t *now = &panels[side], *next = &panels[!side];
    place_t after = now->place;
    more = next_place(u, &after);
    if (more) begin_panel(u, next, after, !side, calls, now);
    else *next = (coming_t){0};
    if (!u->kept && now->place.block != packed) {
      packed = now->place.block;
      pack_right(u, packed);
    }
    multiply_panel(u, now, next);
  }
}

static void clear_sums(unit_t *u) {
  if (is_few(u)) {
    memset(u->out, 0, (size_t)(FEW_ROWS * SUM_STRIDE) * sizeof(float));
    return;
  }
  begin_strip(u, 0, 0, is_gated(u->p) ? 128 : MAX_UNIT_COLS);
  size_t strip = (size_t)(u->left_pairs * u->right_pairs * QUAD) * sizeof(float);
  memset(u->all_sums, 0, is_gated(u->p) ? 2 * strip : strip);
}

// The unit's sums from row `m` on, and how many rows of them there are.
static float *finished_rows(unit_t *u, int64_t m, int64_t *count) {
  *count = oi_min(16, u->rows - m);
  if (is_few(u)) return u->out;
  int64_t strip = u->left_pairs * u->right_pairs * QUAD, half = m / 16 % 2;
  for (int s = 0; s < (is_gated(u->p) ? 2 : 1); s++) {
    const float *sums = u->all_sums + s * strip;
    float *to = u->out + s * STRIP_COLS;
    if (LEFT_IS_B) {
      rows_of_tiles(sums + m / 32 * QUAD + half * 256, u->right_pairs * QUAD, u->cols, to,
                    SUM_STRIDE);
    } else {
      rows_of_tiles(sums + m / 32 * u->right_pairs * QUAD + half * 512, QUAD, u->cols, to,
                    SUM_STRIDE);
    }
  }
  return u->out;
}

// The unit's rows are others than before.
static void forget_rows(unit_t *u) { u->known = 0; }

static void begin_units(unit_t *u, void *scratch) {
  char *at = scratch;
  u->right = at;
  u->left[0] = at += u->p->panel_bytes;
  u->left[1] = at += LEFT_BYTES;
  u->all_sums = (float *)(at += LEFT_BYTES);
  u->run = u->all_sums + MAX_UNIT_ROWS * MAX_UNIT_COLS;
  u->out = u->run + 2 * QUAD;
  u->right_scales = u->out + 16 * SUM_STRIDE;
  u->left_scales[0] = u->right_scales + u->p->panel_bytes / STEP_TILES / RUN_STEPS * 32;
  u->left_scales[1] = u->left_scales[0] + LEFT_K / RUN_K * 32;
  forget_rows(u);
  oi_tiles_begin();
}

static void end_units(void) { oi_tiles_end(); }
