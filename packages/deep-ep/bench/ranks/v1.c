// What the benches of the first version's buffer compare with: plain copies of the same bytes, a
// naive all-to-all (pack, send, unpack), and a bare round of flags.
#include "oi_ranks.h"
#include "oi_simd.h"

// `bytes` of this rank, by all threads; `stream` goes around the caches.
void bench_copy(const params_t *p, oi_ctx *ctx) {
  int64_t each = oi_ceil_div(oi_ceil_div(p->bytes, ctx->nthreads), 64) * 64;
  int64_t from = oi_min(p->bytes, each * ctx->tid), to = oi_min(p->bytes, from + each);
  uint8_t *out = (uint8_t *)p->out;
  const uint8_t *x = (const uint8_t *)p->x;
#if defined(__AVX512F__)
  if (p->stream) {
    for (int64_t i = from; i + 64 <= to; i += 64)
      _mm512_stream_si512((__m512i *)(out + i), _mm512_loadu_si512(x + i));
    _mm_sfence();
    return;
  }
#endif
  memcpy(out + from, x + from, (size_t)(to - from));
}

// Signals every rank and waits for all, twice: a round trip for everybody.
void bench_flags(const params_t *p, oi_ctx *ctx) {
  if (ctx->tid != 0) return;
  oi_window *w = p->window;
  oi_group *g = w->group;
  for (int64_t half = 1; half <= 2; half++) {
    for (int32_t i = 1; i <= g->size; i++)
      oi_signal(w, (g->rank + i) % g->size, g->rank, p->seq * 2 + half);
    for (int32_t i = 0; i < g->size; i++)
      if (oi_wait(w, (g->rank + i) % g->size, p->seq * 2 + half, (g->rank + i) % g->size,
                  "the flags of the bench") != OI_ARRIVED)
        return;
  }
}

// The job of dispatch as one would first write it: rows are packed by rank, blocks are sent to the
// receiver's staging, which copies them to where they belong. `at`: first rows, [ranks + 1][ranks].
void bench_naive(const params_t *p, oi_ctx *ctx) {
  oi_window *w = p->window;
  oi_group *g = w->group;
  const int32_t *place = (const int32_t *)p->positions;
  const int64_t *at = (const int64_t *)p->at;
  uint8_t *packed = (uint8_t *)p->packed, *out = (uint8_t *)p->out;
  if (ctx->tid != 0) return;
  int64_t row = p->row_bytes, sent = 0;
  for (int32_t to = 0; to < g->size; to++) {
    int64_t rows = at[(g->rank + 1) * g->size + to] - at[g->rank * g->size + to];
    for (int64_t t = 0; t < p->tokens; t++) {
      int32_t i = place[t * g->size + to];
      if (i < 0) continue;
      memcpy(packed + (sent + i) * row, (const uint8_t *)p->x + t * row, (size_t)row);
    }
    oi_put(w, to, at[g->rank * g->size + to] * row, packed + sent * row, rows * row);
    oi_signal(w, to, g->rank, p->seq);
    sent += rows;
  }
  for (int32_t from = 0; from < g->size; from++) {
    if (oi_wait(w, from, p->seq, from, "a block of the bench") != OI_ARRIVED) return;
    int64_t first = at[from * g->size + g->rank], end = at[(from + 1) * g->size + g->rank];
    memcpy(out + first * row, w->data + first * row, (size_t)((end - first) * row));
  }
}
