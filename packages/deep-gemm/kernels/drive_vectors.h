// How vectors compute a unit of work: its rows of A packed by K block, its columns of B tile by
// tile, few rows against B as it lies.
#pragma once
#include "epilogue.h"
#include "microkernels.h"
#include "segments.h"

enum {
  KEPT_ROWS = 24,    // up to this many rows A is packed once a segment, not once a unit,
  KEPT_BLOCKS = 64,  // if it has no more K blocks than this
  HALVES_ROWS = 48,  // up to this many rows a K block is packed in halves
};

// What the kept panel of A was packed for.
typedef struct {
  segment_t segment;
  int64_t scale;  // block of B's columns; −1: nothing is kept
} kept_t;

typedef struct {
  const params_t *p;
  segment_t segment;
  int64_t row, rows;  // of the slab
  int64_t col, cols;  // of B, within one block of scales where those are folded
  int64_t blocks;     // K blocks in all
  panel_t *a;         // A's panel: rows of A_STRIDE, one K block after the other
  panel_t *tile;      // a packed tile of B
  b_t *stage;         // rows of STAGE_COLS, where B lies across K
  float *chains;      // sums between the halves of a K block
  float *sums;        // of the strip in hand, in all_sums
  float *all_sums;    // rows of SUM_STRIDE
  kept_t kept;
} unit_t;

// K blocks are counted through all matrices whose products are summed.
typedef struct {
  int64_t slice;  // which of those
  int64_t k, len;
} block_t;

static block_t block_of(const unit_t *u, int64_t i) {
  int64_t length = u->segment.k;
  if (u->p->slices == 1) return (block_t){0, i * K_BLOCK, oi_min(K_BLOCK, length - i * K_BLOCK)};
  int64_t per = oi_ceil_div(length, K_BLOCK), k = i % per * K_BLOCK;
  return (block_t){i / per, k, oi_min(K_BLOCK, length - k)};
}

static const b_t *b_tile(const unit_t *u, int64_t col, block_t b) {
  const params_t *p = u->p;
  int64_t k = B_K_MAJOR ? b.k : b.k * p->b_k, j = B_K_MAJOR ? col * u->segment.b_row : col;
  return b_at(p->b, u->segment.b + b.slice * p->b_slice + j + k);
}

static scales_t b_scales(const unit_t *u) {
  return (scales_t){(const float *)u->p->sb + u->segment.sb, u->p->sb_k};
}

#if A_K_MAJOR
// Rows of A in one K block, with the scales of A and, where folded, of the unit's block of B.
static void pack_a(const unit_t *u, panel_t *to, block_t b) {
  const params_t *p = u->p;
  scales_t sb = b_scales(u);
  if (B_SCALES == SCALES_FOLDED) sb.at += u->col / B_GRAIN_N * p->sb_row;
  int64_t ld = u->segment.a_row;
  const void *a = a_at(p->a, u->segment.a + b.slice * p->a_slice + u->row * ld + b.k);
  for (int64_t m = 0; m < u->rows; m++) {
    scales_t sa = {(const float *)p->sa, p->sa_k};
    if (A_TYPE == TYPE_E4M3) sa.at += u->segment.sa + (u->row + m) / A_GRAIN_M * p->sa_row;
    pack_a_row(to + m * A_STRIDE, a_at(a, m * ld), b.k, b.len, sa, sb);
  }
}
#else
static void pack_a(const unit_t *u, panel_t *to, block_t b) {
  enum { RUNS = A_TYPE == TYPE_E4M3 ? K_BLOCK / 32 + 1 : 1 };
  const params_t *p = u->p;
  scales_t sb = b_scales(u);
  if (B_SCALES == SCALES_FOLDED) sb.at += u->col / B_GRAIN_N * p->sb_row;
  const a_t *a = (const a_t *)p->a + u->segment.a + b.slice * p->a_slice + u->row + b.k * p->a_k;
  int64_t first = b.k / A_GRAIN_K, last = (b.k + b.len - 1) / A_GRAIN_K;
  float scales[RUNS * OI_VF] = {0};
  for (int64_t m = 0; m < u->rows; m += OI_VF) {
    int64_t rows = oi_min(OI_VF, u->rows - m);
    if (A_TYPE == TYPE_E4M3) {
      for (int64_t i = 0; i < rows; i++) {
        int64_t row = (u->row + m + i) / A_GRAIN_M;
        const float *sa = (const float *)p->sa + u->segment.sa + row * p->sa_row;
        for (int64_t r = first; r <= last; r++) scales[(r - first) * OI_VF + i] = sa[r * p->sa_k];
      }
    }
    pack_a_across(to + m * A_STRIDE, a + m, p->a_k, rows, b.k, b.len, scales, sb);
  }
}
#endif

#if !B_K_MAJOR
// One K block of up to STAGE_COLS columns of B, brought together: their rows are whole lines, but
// lie far apart, often by a power of two, and tiles would meet every line several times.
static void stage_columns(const unit_t *u, int64_t j, block_t b) {
  int64_t columns = oi_min(STAGE_COLS, u->cols - j), ld = u->p->b_k;
  const b_t *from = b_tile(u, u->col + j, b);
  for (int64_t k = 0; k < b.len; k++, from += ld) {
    b_t *to = u->stage + k * STAGE_COLS;
    if (columns == STAGE_COLS) memcpy(to, from, STAGE_COLS * sizeof(b_t));
    else memcpy(to, from, (size_t)columns * sizeof(b_t));
  }
}
#endif

// The first `rows` rows that are still to be fetched ahead.
static ahead_t take_ahead(ahead_t *all, int64_t rows) {
  ahead_t part = {all->at, all->ld, oi_min(rows, all->rows)};
  all->at += part.rows * all->ld;
  all->rows -= part.rows;
  return part;
}

// Packs a tile of B and multiplies the unit's rows by it; `next` is the tile to be packed after it.
// For few rows the packing weighs most, and it is twice as fast while what it reads and writes fits
// the first-level cache: then the block goes in two halves. The sums do not notice.
static void multiply_tile(const unit_t *u, const panel_t *a, int64_t j, block_t b, int first,
                          ahead_t next) {
  const params_t *p = u->p;
  int64_t part = u->rows <= HALVES_ROWS ? K_BLOCK / 2 : K_BLOCK;
  int64_t columns = oi_min(TILE_N, u->cols - j);
#if !B_K_MAJOR
  if (j % STAGE_COLS == 0) stage_columns(u, j, b);
#endif
  int64_t tiles = oi_ceil_div(u->rows, M_TILE);
  tile_scales_t scales;
  for (int64_t from = 0; from < b.len; from += part) {
    int64_t len = oi_min(part, b.len - from);
    tile_t tile = {u->tile, from, len, from == 0, from + part >= b.len, u->chains};
    // Packing takes about as long as five rows.
    ahead_t left = next, ahead = {0};
    if (B_K_MAJOR) ahead = take_ahead(&left, 5 * TILE_N / (5 + u->rows));
    block_t here = {b.slice, b.k + from, len};
#if B_K_MAJOR
    const b_t *at = b_tile(u, u->col + j, here);
    int64_t ld = u->segment.b_row;
#else
    const b_t *at = u->stage + from * STAGE_COLS + j % STAGE_COLS;
    int64_t ld = STAGE_COLS;
#endif
    load_tile_scales(&scales, b_scales(u), p->sb_row, u->col + j, columns, here.k, len);
    pack_b_tile(u->tile, at, ld, columns, len, from / 8, &scales, &ahead);
    for (int64_t t = 0, m = 0; t < tiles; t++) {
      int64_t rows = (u->rows - m + tiles - t - 1) / (tiles - t);
      ahead = take_ahead(&left, oi_ceil_div(left.rows, tiles - t));
      packed_tile((int)rows, a + m * A_STRIDE + from, &tile, u->sums + m * SUM_STRIDE + j,
                  SUM_STRIDE, first, &ahead);
      tile.chains += rows * VECS * OI_VF;
      m += rows;
    }
  }
}

#if DIRECT
// Few rows: B is read once, in its stored type, straight into registers.
static void multiply_few(const unit_t *u) {
  for (int64_t j = 0; j < u->cols; j += TILE_N) {
    const panel_t *a = u->a;
    for (int64_t i = 0; i < u->blocks; i++, a += M_TILE * A_STRIDE) {
      block_t b = block_of(u, i);
      int64_t after = j + TILE_N < u->cols ? j + TILE_N : j;
      const b_t *next = i + 1 < u->blocks ? b_tile(u, u->col + j, block_of(u, i + 1))
                                          : b_tile(u, u->col + after, block_of(u, 0));
      if (u->cols - j >= TILE_N && b.len % CHUNK == 0 &&
          direct_tile((int)u->rows, a, b_tile(u, u->col + j, b), next, u->segment.b_row, b.len,
                      u->sums + j, SUM_STRIDE, i == 0)) {
        continue;
      }
      multiply_tile(u, a, j, b, i == 0, (ahead_t){0});
    }
  }
}
#endif

#if !B_K_MAJOR
// The share that column j of block i has in fetching the rows that are brought together next.
static ahead_t tile_after(const unit_t *u, int64_t j, int64_t i) {
  enum { SHARE = K_BLOCK / (STAGE_COLS / TILE_N) };
  int64_t from = j % STAGE_COLS / TILE_N * SHARE;
  j += STAGE_COLS - j % STAGE_COLS;
  if (j >= u->cols) j = 0, i++;
  if (i == u->blocks) return (ahead_t){0};
  block_t b = block_of(u, i);
  if (from >= b.len) return (ahead_t){0};
  const b_t *at = b_tile(u, u->col + j, b) + from * u->p->b_k;
  return (ahead_t){at, u->p->b_k, oi_min(SHARE, b.len - from)};
}
#else
// The tile of B that follows column j of block i: the next columns, else the next block's first.
static ahead_t tile_after(const unit_t *u, int64_t j, int64_t i) {
  j += TILE_N;
  if (j >= u->cols) j = 0, i++;
  if (B_NIBBLES || i == u->blocks) return (ahead_t){0};
  block_t b = block_of(u, i);
  if (b.len < K_BLOCK) return (ahead_t){0};
  return (ahead_t){b_tile(u, u->col + j, b), u->segment.b_row, oi_min(TILE_N, u->cols - j)};
}
#endif

// Many rows: each tile of B is converted once and meets all of the unit's rows. `kept` says that
// A's panel holds all of K already; else it is filled block by block.
static void multiply_many(const unit_t *u, int kept) {
  const panel_t *a = u->a;
  for (int64_t i = 0; i < u->blocks; i++) {
    block_t b = block_of(u, i);
    if (!kept) pack_a(u, u->a, b);
    for (int64_t j = 0; j < u->cols; j += TILE_N) {
      multiply_tile(u, a, j, b, i == 0, tile_after(u, j, i));
    }
    if (kept) a += u->rows * A_STRIDE;
  }
}

// Packs all of A for the units that follow in the same rows; few rows fit, and would otherwise be
// packed again for every unit of columns. Blocks are `stride` rows apart; rows up to `padded` are
// zero.
static void keep_a(unit_t *u, int64_t stride, int64_t padded) {
  size_t zeros = (size_t)((padded - u->rows) * A_STRIDE) * sizeof(panel_t);
  for (int64_t i = 0; i < u->blocks; i++) {
    panel_t *a = u->a + i * (stride * A_STRIDE);
    pack_a(u, a, block_of(u, i));
    memset(a + u->rows * A_STRIDE, 0, zeros);
  }
}

// The sums of u->cols columns from u->col on.
static void multiply(unit_t *u) {
  int kept = u->rows <= KEPT_ROWS && u->blocks <= KEPT_BLOCKS;
  int few = DIRECT && kept && u->rows <= M_TILE;
  if (kept) {
    int64_t scale = B_SCALES == SCALES_FOLDED ? u->col / B_GRAIN_N : 0;
    kept_t *known = &u->kept;
    if (known->scale != scale || memcmp(&known->segment, &u->segment, sizeof u->segment) != 0) {
      keep_a(u, few ? M_TILE : u->rows, few ? DIRECT_ROWS(u->rows) : u->rows);
      *known = (kept_t){u->segment, scale};
    }
  } else {
    u->kept.scale = -1;
  }
#if DIRECT
  if (few) {
    multiply_few(u);
    return;
  }
#endif
  multiply_many(u, kept);
}

// The same for any columns, into the sums from `strip` · STRIP_COLS on: folded scales tie a panel
// of A to one block of B's.
static void multiply_strip(unit_t *u, int strip, int64_t col, int64_t cols) {
  u->blocks = u->p->slices * oi_ceil_div(u->segment.k, K_BLOCK);
  for (int64_t done = 0; done < cols; done += u->cols) {
    u->col = col + done;
    u->cols = cols - done;
    if (B_SCALES == SCALES_FOLDED) u->cols = oi_min(u->cols, B_GRAIN_N - u->col % B_GRAIN_N);
    u->sums = u->all_sums + strip * STRIP_COLS + done;
    multiply(u);
  }
}

static void clear_sums(unit_t *u) {
  memset(u->all_sums, 0, (size_t)(u->rows * SUM_STRIDE) * sizeof(float));
}

// The unit's sums from row `m` on, and how many rows of them there are.
static float *finished_rows(unit_t *u, int64_t m, int64_t *count) {
  *count = u->rows - m;
  return u->all_sums + m * SUM_STRIDE;
}

// The unit's rows are others than before.
static void forget_rows(unit_t *u) { u->kept.scale = -1; }

static void begin_units(unit_t *u, void *scratch) {
  u->all_sums = scratch;
  u->chains = u->all_sums + MAX_UNIT_ROWS * SUM_STRIDE;
  u->tile = (panel_t *)(u->chains + HALVES_ROWS * VECS * OI_VF);
  u->a = u->tile + B_TILE;
#if !B_K_MAJOR
  u->stage = (b_t *)u->a;
  u->a += K_BLOCK * STAGE_COLS * sizeof(b_t) / sizeof(panel_t);
#endif
  forget_rows(u);
}

static void end_units(void) {}
