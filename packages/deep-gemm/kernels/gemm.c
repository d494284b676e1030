// D = A · Bᵀ (+ C) for every kind of product in this package. Work is cut into units of some rows
// times some columns, which threads take as they come; a unit runs over the whole of K, so which
// thread takes it and how large it is changes no sum.
#include "oi_kernel.h"
#include "microkernels.h"
#include "segments.h"

enum {
  MAX_UNIT_ROWS = 192,
  MAX_UNIT_COLS = 256,  // 128 for a scaled B, whose scale is part of A's panel
  KEPT_ROWS = 24,       // up to this many rows A is packed once a segment, not once a unit
  HALVES_ROWS = 48,     // up to this many rows a K block is packed in halves
};

typedef struct {
  const params_t *p;
  segment_t segment;
  int64_t row, rows;  // of the slab
  int64_t col, cols;
  panel_t *a;     // A's panel: rows of A_STRIDE, one K block after the other
  panel_t *tile;  // a packed tile of B
  float *chains;  // sums between the halves of a K block
  float *sums;    // rows of MAX_UNIT_COLS
} unit_t;

static int64_t k_length(const params_t *p, int64_t k) { return oi_min(K_BLOCK, p->k - k); }

static const b_t *b_rows(const unit_t *u, int64_t col) {
  const params_t *p = u->p;
  return (const b_t *)p->b + u->segment.group * p->b_group + col * p->ldb;
}

// Rows of A in one K block, with the scales of A and of the unit's block of B.
static void pack_a(const unit_t *u, panel_t *to, int64_t k) {
  const params_t *p = u->p;
  const a_t *a = (const a_t *)p->a + u->segment.slab * p->a_group + u->row * p->lda + k;
  scales_t sa = {(const float *)p->sa, p->sa_k}, sb = {(const float *)p->sb, p->sb_k};
  if (A_TYPE == TYPE_E4M3) {
    sa.at += u->segment.slab * p->sa_group + u->row * p->sa_m + k / SCALE_K * p->sa_k;
  }
  if (B_TYPE == TYPE_E4M3) {
    sb.at += u->segment.group * p->sb_group + u->col / SCALE_K * p->sb_n + k / SCALE_K * p->sb_k;
  }
  for (int64_t m = 0; m < u->rows; m++) {
    pack_a_row(to + m * A_STRIDE, a + m * p->lda, k_length(p, k), sa, sb);
    if (A_TYPE == TYPE_E4M3) sa.at += p->sa_m;
  }
}

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
static void multiply_tile(const unit_t *u, const panel_t *a, int64_t j, int64_t k, ahead_t next) {
  const params_t *p = u->p;
  int64_t len = k_length(p, k), part = u->rows <= HALVES_ROWS ? K_BLOCK / 2 : K_BLOCK;
  int64_t tiles = oi_ceil_div(u->rows, M_TILE);
  for (int64_t from = 0; from < len; from += part) {
    tile_t tile = {u->tile, from, oi_min(part, len - from), from == 0, from + part >= len, u->chains};
    // Packing takes about as long as five rows.
    ahead_t left = next, ahead = take_ahead(&left, 5 * TILE_N / (5 + u->rows));
    pack_b_tile(u->tile, b_rows(u, u->col + j) + k + from, p->ldb, oi_min(TILE_N, u->cols - j),
                tile.len, from / 8, &ahead);
    for (int64_t t = 0, m = 0; t < tiles; t++) {
      int64_t rows = (u->rows - m + tiles - t - 1) / (tiles - t);
      ahead = take_ahead(&left, oi_ceil_div(left.rows, tiles - t));
      packed_tile((int)rows, a + m * A_STRIDE + from, &tile, u->sums + m * MAX_UNIT_COLS + j,
                  MAX_UNIT_COLS, k == 0, &ahead);
      tile.chains += rows * VECS * OI_VF;
      m += rows;
    }
  }
}

// Few rows: B is read once, in its stored type, straight into registers.
static void multiply_few(const unit_t *u) {
  const params_t *p = u->p;
  for (int64_t j = 0; j < u->cols; j += TILE_N) {
    const b_t *b = b_rows(u, u->col + j);
    int64_t columns = oi_min(TILE_N, u->cols - j);
    const b_t *after = j + TILE_N < u->cols ? b + TILE_N * p->ldb : b;
    const panel_t *a = u->a;
    for (int64_t k = 0; k < p->k; k += K_BLOCK, a += M_TILE * A_STRIDE) {
      int64_t len = k_length(p, k);
      const b_t *next = k + K_BLOCK < p->k ? b + k + K_BLOCK : after;
      if (columns == TILE_N && len % CHUNK == 0 &&
          direct_tile((int)u->rows, a, b + k, next, p->ldb, len, u->sums + j, MAX_UNIT_COLS,
                      k == 0)) {
        continue;
      }
      multiply_tile(u, a, j, k, (ahead_t){0});
    }
  }
}

// The tile of B that follows column j of block k: the next columns, else the next block's first.
static ahead_t tile_after(const unit_t *u, int64_t j, int64_t k) {
  const params_t *p = u->p;
  j += TILE_N;
  if (j >= u->cols) j = 0, k += K_BLOCK;
  if (k_length(p, k) < K_BLOCK) return (ahead_t){0};
  return (ahead_t){b_rows(u, u->col + j) + k, p->ldb, oi_min(TILE_N, u->cols - j)};
}

// Many rows: each tile of B is converted once and meets all of the unit's rows. `kept` says that
// A's panel holds all of K already; else it is filled block by block.
static void multiply_many(const unit_t *u, int kept) {
  const params_t *p = u->p;
  const panel_t *a = u->a;
  for (int64_t k = 0; k < p->k; k += K_BLOCK) {
    if (!kept) pack_a(u, u->a, k);
    for (int64_t j = 0; j < u->cols; j += TILE_N) {
      multiply_tile(u, a, j, k, tile_after(u, j, k));
    }
    if (kept) a += u->rows * A_STRIDE;
  }
}

static void write_unit(const unit_t *u, int zero) {
  const params_t *p = u->p;
  int64_t at = u->segment.slab * p->d_group + u->row * p->ldd + u->col;
  int64_t from = u->segment.slab * p->c_group + u->row * p->ldc + u->col;
  for (int64_t m = 0; m < u->rows; m++) {
    d_t *d = (d_t *)p->d + at + m * p->ldd;
    const d_t *c = p->c == NULL ? NULL : (const d_t *)p->c + from + m * p->ldc;
    const float *sums = u->sums + m * MAX_UNIT_COLS;
    for (int64_t j = 0; j < u->cols; j++) {
      float x = zero ? 0.0f : sums[j];
      d_write(d + j, c == NULL ? x : x + d_read(c + j));
    }
  }
}

// Packs all of A for the units that follow in the same rows; few rows fit, and would otherwise be
// packed again for every unit of columns. Blocks are `stride` rows apart; rows up to `padded` are
// zero.
static void keep_a(unit_t *u, int64_t stride, int64_t padded) {
  const params_t *p = u->p;
  size_t zeros = (size_t)((padded - u->rows) * A_STRIDE) * sizeof(panel_t);
  for (int64_t k = 0; k < p->k; k += K_BLOCK) {
    panel_t *a = u->a + k / K_BLOCK * (stride * A_STRIDE);
    pack_a(u, a, k);
    memset(a + u->rows * A_STRIDE, 0, zeros);
  }
}

static void run_unit(unit_t *u, segment_t *packed, int64_t *packed_scale) {
  const params_t *p = u->p;
  if (u->segment.group < 0 || p->k == 0) {
    write_unit(u, 1);
    return;
  }
  int few = u->rows <= M_TILE, kept = u->rows <= KEPT_ROWS;
  if (kept) {
    int64_t scale = B_TYPE == TYPE_E4M3 ? u->col / SCALE_K : 0;
    if (memcmp(packed, &u->segment, sizeof *packed) != 0 || *packed_scale != scale) {
      keep_a(u, few ? M_TILE : u->rows, few ? DIRECT_ROWS(u->rows) : u->rows);
      *packed = u->segment;
      *packed_scale = scale;
    }
  } else {
    *packed_scale = -1;
  }
  if (few) multiply_few(u);
  else multiply_many(u, kept);
  write_unit(u, 0);
}

void gemm(const params_t *p, oi_ctx *ctx) {
  unit_t u = {.p = p, .sums = ctx->scratch};
  u.chains = u.sums + MAX_UNIT_ROWS * MAX_UNIT_COLS;
  u.tile = (panel_t *)(u.chains + HALVES_ROWS * VECS * OI_VF);
  u.a = u.tile + B_TILE;
  int64_t col_units = oi_ceil_div(p->n, p->unit_cols);
  segment_t packed = {0};
  int64_t packed_scale = -1;
  segment_walk walk = {0};
  int64_t at = oi_take(ctx, 1), base = 0;
  while (next_segment(p, &walk, &u.segment)) {
    int64_t row_units = oi_ceil_div(u.segment.rows, p->unit_rows);
    int64_t end = base + row_units * col_units;
    for (; at < end; at = oi_take(ctx, 1)) {
      int64_t row = (at - base) % row_units * p->unit_rows;
      u.col = (at - base) / row_units * p->unit_cols;
      u.row = u.segment.row + row;
      u.rows = oi_min(p->unit_rows, u.segment.rows - row);
      u.cols = oi_min(p->unit_cols, p->n - u.col);
      if (u.rows > KEPT_ROWS || row_units > 1) packed_scale = -1;
      run_unit(&u, &packed, &packed_scale);
    }
    base = end;
  }
}
