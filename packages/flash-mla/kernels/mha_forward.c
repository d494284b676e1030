// Attention of ordinary heads over packed sequences, forward. An item is a range of rows (token ×
// head of one key head) of one sequence. Each row walks the keys of its sequence in blocks from
// key 0, whatever rows or threads share the work, so its result is its own. Blocks are computed by
// matrix tiles or by vectors.
//
// Not here: the list of items and checks of arguments (src/mha.ts), the backward pass.
#include "mha_types.h"

typedef struct {
  int32_t request, kv_head, row_begin, row_end;
} item_t;

#if AMX
#include "mha_forward_amx.h"
#else
#include "mha_forward_vectors.h"
#endif

void mha_forward(const params_t *p, oi_ctx *ctx) {
  work_t w;
  carve_scratch(p, &w, ctx->scratch);
#if AMX
  oi_tiles_begin();
#endif
  const item_t *items = p->items;
  for (int64_t i; (i = oi_take(ctx, 1)) < p->item_count;) run_item(p, &items[i], &w);
#if AMX
  oi_tiles_end();
#endif
}
