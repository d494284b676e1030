// Rows of a table that all ranks hold parts of, by index. Ranks whose windows are mapped here are
// read where their rows lie, without their doing. Those behind links are asked: indices go out,
// their rows come back while they fetch too, so over links every rank fetches at the same time.
//
// In the window: this rank's part of the table; then, for links, what others ask of it and what
// they answer, `room` indices and rows of each.
#include "elastic.h"

// Each rank's place for indices: their number, then they. Aligned.
static int64_t asks_bytes(const params_t *p) { return align_up(8 + p->room * 4, 64); }
static int64_t asks_at(const params_t *p, int64_t rank) {
  return p->asks_at + rank * asks_bytes(p);
}

static int32_t owner_of(const params_t *p, int64_t i) {
  return (int32_t)(((const int32_t *)p->indices)[i] / p->entries);
}

// Tells each rank behind a link which of its rows this one wants; `kept` is memory that stays.
static void ask(const params_t *p, oi_window *w, uint8_t *kept) {
  oi_group *g = w->group;
  for (int32_t to = 0; to < g->size; to++) {
    if (oi_is_mapped(w, to)) continue;
    int32_t *at = (int32_t *)(kept + to * asks_bytes(p));
    int32_t count = 0;
    for (int64_t i = 0; i < p->count; i++)
      if (owner_of(p, i) == to)
        at[2 + count++] = (int32_t)(((const int32_t *)p->indices)[i] % p->entries);
    at[0] = count;
    oi_put(w, to, asks_at(p, g->rank), at, 8 + count * 4);
    raise(w, F_ASKED, p->epoch, to);
  }
}

// Gathers what others want into `kept` and puts it.
static int32_t answer(const params_t *p, oi_window *w, uint8_t *kept) {
  oi_group *g = w->group;
  for (int32_t i = 1; i < g->size; i++) {
    int32_t from = (g->rank + i) % g->size;
    if (oi_is_mapped(w, from)) continue;
    int32_t code = await(w, F_ASKED, p->epoch, from, "the indices that it fetches");
    if (code != OI_ARRIVED) return code;
    const int32_t *asked = (const int32_t *)(w->data + asks_at(p, from));
    for (int32_t j = 0; j < asked[0]; j++)
      memcpy(kept + j * p->entry_bytes, w->data + p->table_at + asked[2 + j] * p->entry_bytes,
             (size_t)p->entry_bytes);
    int64_t offset = p->answers_at + g->rank * p->room * p->entry_bytes;
    oi_put(w, from, offset, kept, asked[0] * p->entry_bytes);
    kept += asked[0] * p->entry_bytes;
    raise(w, F_ANSWERED, p->epoch, from);
  }
  return OI_ARRIVED;
}

static int32_t collect(const params_t *p, oi_window *w) {
  oi_group *g = w->group;
  for (int32_t from = 0; from < g->size; from++) {
    if (oi_is_mapped(w, from)) continue;
    int32_t code = await(w, F_ANSWERED, p->epoch, from, "the rows that this rank fetches");
    if (code != OI_ARRIVED) return code;
    const uint8_t *rows = w->data + p->answers_at + from * p->room * p->entry_bytes;
    for (int64_t i = 0; i < p->count; i++) {
      if (owner_of(p, i) != from) continue;
      memcpy((uint8_t *)p->out + i * p->row_bytes, rows, (size_t)p->row_bytes);
      rows += p->entry_bytes;
    }
  }
  return oi_flush(g);
}

void elastic_engram(const params_t *p, oi_ctx *ctx) {
  oi_window *w = p->window;
  oi_group *g = w->group;
  uint8_t *kept = NULL;
  if (ctx->tid == 0 && p->linked) {
    size_t asks = (size_t)(asks_bytes(p) * g->size);
    kept = malloc(asks + (size_t)(p->room * p->entry_bytes * g->size));
    if (kept == NULL) {
      oi_fail(g, OI_ABORTED, g->rank, 0, (int64_t)asks, 0, "memory for fetching");
      return;
    }
    ask(p, w, kept);
  }
  int64_t bytes[g->size];
  memset(bytes, 0, sizeof bytes);
  for (int64_t from; (from = oi_take(ctx, 64)) < p->count;) {
    for (int64_t i = from; i < oi_min(p->count, from + 64); i++) {
      int32_t owner = owner_of(p, i);
      if (!oi_is_mapped(w, owner)) continue;
      int64_t entry = ((const int32_t *)p->indices)[i] % p->entries;
      memcpy((uint8_t *)p->out + i * p->row_bytes,
             oi_peer_data(w, owner, p->table_at + entry * p->entry_bytes), (size_t)p->row_bytes);
      bytes[owner] += p->row_bytes;
    }
  }
  for (int32_t i = 0; i < g->size; i++)
    if (bytes[i] > 0) oi_count(g, i, bytes[i], 1);
  if (ctx->tid != 0 || !p->linked) return;
  // After a failure a link may still read it, so it stays.
  if (answer(p, w, kept + asks_bytes(p) * g->size) == OI_ARRIVED && collect(p, w) == OI_ARRIVED)
    free(kept);
}
