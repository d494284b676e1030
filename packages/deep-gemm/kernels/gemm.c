// D = A · Bᵀ (+ C) for every kind of product in this package. Work is cut into units of some rows
// times some columns, which threads take as they come; a unit runs over the whole of K, so which
// thread takes it and how large it is changes no sum. How a unit is computed is in the drivers.
#include "oi_kernel.h"
#include "elements.h"
#if TILES
#include "drive_tiles.h"
#else
#include "drive_vectors.h"
#endif

// Rows [from, from + count) of the unit.
static void write_rows(const unit_t *u, int64_t from, int64_t count, int64_t col, int64_t cols,
                       float *sums) {
  const params_t *p = u->p;
  int64_t gate = is_gated(p) ? p->n / 2 : 0;
  int transform = EPILOGUE && u->segment.group >= 0;
  for (int64_t m = from; m < from + count; m++, sums += SUM_STRIDE) {
    if (transform) transform_row(p, sums, u->segment.group, col, cols, gate);
    int64_t row = u->row + m;
    d_t *d = (d_t *)p->d + u->segment.slab * p->d_slab + row * p->d_row;
    const d_t *c = p->c;
    if (c != NULL) c += u->segment.slab * p->c_slab + row * p->c_row;
#if EPILOGUE
    if (extra(p, EXTRA_HEAD_MID) > 0) {
      write_heads(p, d, c, sums, col, cols);
      continue;
    }
#if D_TYPE == TYPE_E4M3
    if (p->sd != NULL) {
      float *scales = (float *)p->sd + u->segment.slab * (int64_t)extra(p, EXTRA_SD_SLAB) +
                      row * (int64_t)extra(p, EXTRA_SD_ROW) +
                      col / QUANTISED_COLS * (int64_t)extra(p, EXTRA_SD_COL);
      write_quantised(p, d + col, scales, sums, cols);
      continue;
    }
#endif
#endif
    write_run(d + col, c == NULL ? NULL : c + col, sums, cols);
  }
}

// Columns [col, col + cols) of D for the unit's rows.
static void run_unit(unit_t *u, int64_t col, int64_t cols) {
  const params_t *p = u->p;
  if (u->segment.group < 0 || u->segment.k == 0 || p->slices == 0) {
    clear_sums(u);
  } else {
    multiply_strip(u, 0, col, cols);
    if (is_gated(p)) multiply_strip(u, 1, col + p->n / 2, cols);
  }
  for (int64_t m = 0, count; m < u->rows; m += count) {
    float *sums = finished_rows(u, m, &count);
    write_rows(u, m, count, col, cols, sums);
  }
}

void gemm(const params_t *p, oi_ctx *ctx) {
  unit_t u = {.p = p};
  begin_units(&u, ctx->scratch);
  int64_t n = is_gated(p) ? p->n / 2 : p->n;
  int64_t col_units = oi_ceil_div(n, p->unit_cols);
  segment_walk walk = {0};
  int64_t at = oi_take(ctx, 1), base = 0;
  while (next_segment(p, &walk, &u.segment)) {
    int64_t row_units = oi_ceil_div(u.segment.rows, p->unit_rows);
    int64_t end = base + row_units * col_units;
    for (; at < end; at = oi_take(ctx, 1)) {
      int64_t row = (at - base) % row_units * p->unit_rows;
      int64_t col = (at - base) / row_units * p->unit_cols;
      u.row = u.segment.row + row;
      u.rows = oi_min(p->unit_rows, u.segment.rows - row);
      if (row_units > 1) forget_rows(&u);
      run_unit(&u, col, oi_min(p->unit_cols, n - col));
    }
    base = end;
  }
  end_units();
}
