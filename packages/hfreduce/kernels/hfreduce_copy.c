// Many small copies as one operation of the stream: tensors into a bucket and out of it. `list`
// holds triples: from, to, bytes.
#include "oi_ranks.h"

void hfreduce_copy(const params_t *p, oi_ctx *ctx) {
  const int64_t *list = p->list;
  for (int64_t i; (i = oi_take(ctx, 1)) < p->count;) {
    const int64_t *item = list + 3 * i;
    memcpy((void *)(intptr_t)item[1], (const void *)(intptr_t)item[0], (size_t)item[2]);
  }
}
