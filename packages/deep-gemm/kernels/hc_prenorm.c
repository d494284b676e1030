// d = a · bᵀ for a wide a (bf16) and a handful of rows b (f32), and the squares of a summed on the
// way: the projection and the RMS statistic of hyper-connections in one pass over a. K may be cut
// into splits, each with results of its own.
//
// Lanes run along K. Within BLOCK_K, lane l sums k = l, l + OI_VF, …; the blocks' lanes are added in
// order, and the lanes of the whole as a tree at the end: an order that depends on K and the number of
// splits alone.
#include "oi_kernel.h"
#include "lanes.h"

enum {
  BLOCK_K = 512,
  SPLIT_K = 64,  // splits begin at multiples of it
  TILE_M = OI_VF == 8 ? 3 : 6,
  TILE_COLS = 4,
  MOST_ROWS = 24,  // of a unit; a multiple of TILE_M
};

// Of a thread: rows of a as float32, one block of K; sums of the unit.
typedef struct {
  float *a;        // MOST_ROWS rows of BLOCK_K
  vf *totals;      // [tile][group of columns][TILE_M][TILE_COLS]
  vf *squares;     // MOST_ROWS
} unit_t;

static inline vf load_part(const float *p, int64_t n) {
  if (n >= OI_VF) return vf_load(p);
  float part[OI_VF] = {0};
  memcpy(part, p, (size_t)n * sizeof(float));
  return vf_load(part);
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
static inline __attribute__((always_inline)) void multiply(int rows, const float *a,
                                                           const float *const b[TILE_COLS],
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
    for (int m = 0; m < rows; m++) x[m] = vf_load(a + m * BLOCK_K + k);
    UNROLL
    for (int n = 0; n < TILE_COLS; n++) {
      vf y = load_part(b[n] + k, len - k);
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
                                                    const float *const b[TILE_COLS], int64_t len,
                                                    vf *totals) {
  // A number between two is done as the larger, with what happens to lie in the rows behind.
  if (rows == 1) multiply(1, a, b, len, totals);
  else if (rows <= 3) multiply(3, a, b, len, totals);
  else multiply(TILE_M, a, b, len, totals);
}

// Rows [m0, m0 + rows) over [from, to) of K.
static void run_unit(const params_t *p, unit_t *u, int64_t split, int64_t m0, int64_t rows,
                     int64_t from, int64_t to) {
  int64_t groups = oi_ceil_div(p->n, TILE_COLS);
  int64_t tiles = oi_ceil_div(rows, TILE_M), tile_size = groups * TILE_M * TILE_COLS;
  for (int64_t i = 0; i < tiles * tile_size; i++) u->totals[i] = vf_zero();
  for (int64_t m = 0; m < rows; m++) u->squares[m] = vf_zero();
  memset(u->a + rows * BLOCK_K, 0, (size_t)(tiles * TILE_M - rows) * BLOCK_K * sizeof(float));
  for (int64_t k = from; k < to; k += BLOCK_K) {
    int64_t len = oi_min(BLOCK_K, to - k);
    for (int64_t m = 0; m < rows; m++) {
      const uint16_t *row = (const uint16_t *)p->a + (m0 + m) * p->a_row + k;
      u->squares[m] += widen_row(u->a + m * BLOCK_K, row, len);
    }
    for (int64_t g = 0; g < groups; g++) {
      const float *b[TILE_COLS];
      for (int i = 0; i < TILE_COLS; i++) {  // columns that are not there: the last one again
        b[i] = (const float *)p->b + oi_min(g * TILE_COLS + i, p->n - 1) * p->b_row + k;
      }
      for (int64_t t = 0; t < tiles; t++) {
        multiply_rows(oi_min(TILE_M, rows - t * TILE_M), u->a + t * TILE_M * BLOCK_K, b, len,
                      u->totals + t * tile_size + g * TILE_M * TILE_COLS);
      }
    }
  }
  for (int64_t m = 0; m < rows; m++) {
    float *d = (float *)p->d + split * p->d_split + (m0 + m) * p->d_row;
    const vf *totals = u->totals + m / TILE_M * tile_size + m % TILE_M * TILE_COLS;
    for (int64_t n = 0; n < p->n; n++) {
      d[n] = vf_sum(totals[n / TILE_COLS * (TILE_M * TILE_COLS) + n % TILE_COLS]);
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
  unit_t u = {.a = ctx->scratch};
  u.squares = (vf *)(u.a + MOST_ROWS * BLOCK_K);
  u.totals = u.squares + MOST_ROWS;
  int64_t units = oi_ceil_div(p->m, p->unit_rows);
  for (int64_t i; (i = oi_take(ctx, 1)) < units * p->splits;) {
    int64_t split = i / units, m = i % units * p->unit_rows;
    run_unit(p, &u, split, m, oi_min(p->unit_rows, p->m - m), split_start(p, split),
             split_start(p, split + 1));
  }
}
