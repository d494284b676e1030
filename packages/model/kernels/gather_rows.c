// out[i] = rows[index[i]], byte for byte, for one table or for two that share the index (FP8 values
// and their scales).
#include <string.h>
#include "oi_kernel.h"

void gather_rows(const params_t *p, oi_ctx *ctx) {
  const int32_t *index = p->index;
  for (int64_t i; (i = oi_take(ctx, 1)) < p->count;) {
    int64_t n = p->row_bytes, m = p->second_bytes, from = index[i];
    memcpy((char *)p->out + i * n, (const char *)p->rows + from * n, (size_t)n);
    if (m) memcpy((char *)p->second_out + i * m, (const char *)p->second + from * m, (size_t)m);
  }
}
