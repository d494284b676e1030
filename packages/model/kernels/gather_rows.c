// out[i] = rows[index[i]], byte for byte, for one table or for two that share the index (FP8 values
// and their scales).
#include <string.h>
#include "oi_kernel.h"

void gather_rows(const params_t *p, oi_ctx *ctx) {
  const int32_t *index = p->index;
  for (int64_t i; (i = oi_take(ctx, 1)) < p->count;) {
    size_t n = (size_t)p->row_bytes, m = (size_t)p->second_bytes;
    memcpy((char *)p->out + (size_t)i * n, (const char *)p->rows + (size_t)index[i] * n, n);
    if (m) memcpy((char *)p->second_out + (size_t)i * m, (const char *)p->second + (size_t)index[i] * m, m);
  }
}
