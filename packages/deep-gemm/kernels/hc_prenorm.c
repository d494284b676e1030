// d = a · bᵀ for a wide a (bf16) and a handful of rows b (f32), and the squares of a summed on the
// way: the projection and the RMS statistic of hyper-connections in one pass over a. K may be cut
// into splits, each with results of its own.
//
// Lanes run along K. Within BLOCK_K, lane l sums k = l, l + OI_VF, …; the blocks' lanes are added
// in order, and the lanes of the whole as a tree at the end: an order that depends on K and the
// number of splits alone.
#include "oi_kernel.h"
#include "lanes.h"

enum {
  BLOCK_K = 512,
  SPLIT_K = 64,  // splits begin at multiples of it
  TILE_M = OI_VF == 8 ? 3 : 6,
  TILE_COLS = 4,
  TILE = TILE_M * TILE_COLS,
  MOST_ROWS = 12,  // of a unit; a multiple of TILE_M
  ROW = BLOCK_K + 16,  // of a panel: not a power of two, for the caches' sake
};

// Of a thread: one block of K of a, as float32; all of a split's b, block after block, because its rows
// may lie a multiple of the caches' period apart; sums of the unit.
typedef struct {
  float *a;        // MOST_ROWS rows of ROW
  float *b;        // blocks of whole groups of columns, rows of ROW
  int64_t split;   // whose b that is
  vf *totals;      // [tile][group of columns][TILE_M][TILE_COLS]
  vf *squares;     // MOST_ROWS
} unit_t;

// `len` ≤ BLOCK_K elements of a row of b, zeros up to a whole vector.
static void copy_row(float *to, const float *from, int64_t len) {
  memcpy(to, from, (size_t)len * sizeof(float));
  for (int64_t k = len; k % OI_VF != 0; k++) to[k] = 0;
}

// `len` ≤ BLOCK_K elements of a row as float32, zeros up to a whole vector; returns their squares.
static vf widen_row(float *to, const uint16_t *from, int64_t len) {
  vf sum = vf_zero();
  for (int64_t k = 0; k < len; k += OI_VF) {
    vf x;
    if (len - k >= OI_VF) {
      x = vf_load_bf16(from + k);
    } else {
      uint16_t part[OI_VF] = {0};
      memcpy(part, from + k, (size_t)(len - k) * sizeof(uint16_t));
      x = vf_load_bf16(part);
    }
    vf_store(to + k, x);
    sum = vf_fma(x, x, sum);
  }
  return sum;
}

// totals += `rows` rows of a times TILE_COLS rows of b.
static inline __attribute__((always_inline)) void multiply(int rows, const float *a, const float *b,
                                                           int64_t len, vf *totals) {
  vf acc[TILE_M][TILE_COLS];
  UNROLL
  for (int m = 0; m < rows; m++) {
    UNROLL
    for (int n = 0; n < TILE_COLS; n++) acc[m][n] = vf_zero();
  }
  for (int64_t k = 0; k < len; k += OI_VF) {
    vf x[TILE_M];
    UNROLL
    for (int m = 0; m < rows; m++) x[m] = vf_load(a + m * ROW + k);
    UNROLL
    for (int n = 0; n < TILE_COLS; n++) {
      vf y = vf_load(b + n * ROW + k);
#if defined(__AVX512F__)
      __asm__("" : "+v"(y));  // or it is loaded again for every row
#endif
      UNROLL
      for (int m = 0; m < rows; m++) acc[m][n] = vf_fma(x[m], y, acc[m][n]);
    }
  }
  UNROLL
  for (int m = 0; m < rows; m++) {
    UNROLL
    for (int n = 0; n < TILE_COLS; n++) totals[m * TILE_COLS + n] += acc[m][n];
  }
}

static __attribute__((noinline)) void multiply_rows(int64_t rows, const float *a,
                                                    const float *b, int64_t len, vf *totals) {
  // A number between two is done as the larger, with what happens to lie in the rows behind.
  if (rows == 1) multiply(1, a, b, len, totals);
  else if (rows <= 3) multiply(3, a, b, len, totals);
  else multiply(TILE_M, a, b, len, totals);
}

// The split's part of b, [from, to) of K.
static void pack_b(const params_t *p, unit_t *u, int64_t from, int64_t to) {
  int64_t columns = oi_ceil_div(p->n, TILE_COLS) * TILE_COLS;
  float *panel = u->b;
  for (int64_t k = from; k < to; k += BLOCK_K) {
    for (int64_t n = 0; n < columns; n++, panel += ROW) {
      // Columns that are not there: the last one again.
      const float *row = (const float *)p->b + oi_min(n, p->n - 1) * p->b_row;
      copy_row(panel, row + k, oi_min(BLOCK_K, to - k));
    }
  }
}

// Fetches part `i` of `parts` of the next block of a's rows, so that memory works all the time.
static inline void fetch_ahead(const uint16_t *rows, int64_t step, int64_t count, int64_t i,
                               int64_t parts) {
  enum { LINES = BLOCK_K / 32 };
  for (int64_t at = i * count * LINES / parts; at < (i + 1) * count * LINES / parts; at++) {
    __builtin_prefetch(rows + at / LINES * step + at % LINES * 32, 0, 2);
  }
}

// Rows [m0, m0 + rows) over [from, to) of K.
static void run_unit(const params_t *p, unit_t *u, int64_t split, int64_t m0, int64_t rows,
                     int64_t from, int64_t to) {
  int64_t groups = oi_ceil_div(p->n, TILE_COLS);
  int64_t tiles = oi_ceil_div(rows, TILE_M);
  for (int64_t i = 0; i < tiles * groups * TILE; i++) u->totals[i] = vf_zero();
  for (int64_t m = 0; m < rows; m++) u->squares[m] = vf_zero();
  memset(u->a + rows * ROW, 0, (size_t)(tiles * TILE_M - rows) * ROW * sizeof(float));
  for (int64_t k = from; k < to; k += BLOCK_K) {
    int64_t len = oi_min(BLOCK_K, to - k);
    for (int64_t m = 0; m < rows; m++) {
      const uint16_t *row = (const uint16_t *)p->a + (m0 + m) * p->a_row + k;
      u->squares[m] += widen_row(u->a + m * ROW, row, len);
    }
    const uint16_t *next = (const uint16_t *)p->a + m0 * p->a_row + k + BLOCK_K;
    const float *b = u->b + (k - from) / BLOCK_K * groups * (TILE_COLS * ROW);
    for (int64_t g = 0; g < groups; g++) {
      for (int64_t t = 0; t < tiles; t++) {
        if (k + BLOCK_K < to) {
          fetch_ahead(next, p->a_row, rows, g * tiles + t, groups * tiles);
        }
        multiply_rows(oi_min(TILE_M, rows - t * TILE_M), u->a + t * TILE_M * ROW,
                      b + g * TILE_COLS * ROW, len, u->totals + (t * groups + g) * TILE);
      }
    }
  }
  for (int64_t m = 0; m < rows; m++) {
    float *d = (float *)p->d + split * p->d_split + (m0 + m) * p->d_row;
    const vf *totals = u->totals + m / TILE_M * groups * TILE + m % TILE_M * TILE_COLS;
    for (int64_t n = 0; n < p->n; n++) {
      d[n] = vf_sum(totals[n / TILE_COLS * TILE + n % TILE_COLS]);
    }
    ((float *)p->sqr_sum)[split * p->s_split + (m0 + m) * p->s_row] = vf_sum(u->squares[m]);
  }
}

// Where split `s` begins: blocks of SPLIT_K are shared evenly, the first splits get the rest.
static int64_t split_start(const params_t *p, int64_t s) {
  int64_t blocks = oi_ceil_div(p->k, SPLIT_K);
  int64_t each = blocks / p->splits, rest = blocks % p->splits;
  return oi_min(p->k, (s * each + oi_min(s, rest)) * SPLIT_K);
}

void hc_prenorm(const params_t *p, oi_ctx *ctx) {
  unit_t u = {.a = ctx->scratch, .split = -1};
  u.squares = (vf *)(u.a + MOST_ROWS * ROW);
  u.totals = u.squares + MOST_ROWS;
  u.b = (float *)(u.totals + MOST_ROWS * oi_ceil_div(p->n, TILE_COLS) * TILE_COLS);
  int64_t units = oi_ceil_div(p->m, p->unit_rows);
  for (int64_t i; (i = oi_take(ctx, 1)) < units * p->splits;) {
    int64_t split = i / units, m = i % units * p->unit_rows;
    int64_t from = split_start(p, split), to = split_start(p, split + 1);
    if (split != u.split) pack_b(p, &u, from, to);
    u.split = split;
    run_unit(p, &u, split, m, oi_min(p->unit_rows, p->m - m), from, to);
  }
}
