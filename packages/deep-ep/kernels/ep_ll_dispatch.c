// Low-latency dispatch, without a round of counts. Sending: a token is cast once and written for
// each of its experts. Where the expert's memory is mapped, the sender claims rows of the packed
// result by adding to a counter there and writes them in place; behind a link, and where a peer may
// be left out while it still writes, rows go to slots that only this sender uses, and the receiver
// claims and packs. A note with the counts follows, then the flag.
#include "ep_cast.h"
#include "ep_ll.h"

// A token ready to be sent.
typedef struct token_t {
  const uint8_t *x;
  const uint32_t *scales;
  int32_t number;
} token_t;

// Places that all threads use, in memory of the caller.
typedef struct plan_t {
  const int32_t *counts;  // [experts] of this rank's selections
  int32_t *first;         // [experts]: the first row, in the packed result or in the slots
  uint8_t **slots;        // [ranks]: where this rank's slots of a rank are written; null if direct
  uint8_t **staged;       // [ranks]: the same if they are put
  const int32_t *places;  // [tokens][k] among this rank's selections of an expert
} plan_t;

static plan_t plan_of(const params_t *p) {
  ep_ll l = ep_ll_of(p);
  int64_t *words = p->plan;
  plan_t plan = {.slots = (uint8_t **)words, .staged = (uint8_t **)(words + l.size)};
  plan.counts = (const int32_t *)p->counts;
  plan.first = (int32_t *)(words + 2 * l.size);
  plan.places = (const int32_t *)p->places;
  return plan;
}

static int refuse(const ep_ll *l, const char *why) {
  oi_fail(l->g, OI_BAD_DATA, (int32_t)l->rank, 0, 0, 0, why);
  return 0;
}

// Counts the selections of each expert and gives each its place, in the order of tokens.
static int count_selections(const params_t *p, const ep_ll *l) {
  int32_t *counts = (int32_t *)p->counts, *places = (int32_t *)p->places;
  memset(counts, 0, 4 * (size_t)l->experts);
  const int64_t *choice = p->choice;
  for (int64_t i = 0; i < p->token_count * p->topk; i++) {
    places[i] = -1;
    if (choice[i] < 0) continue;
    if (choice[i] >= l->experts) return refuse(l, "topkIdx names an expert beyond the last");
    places[i] = counts[choice[i]]++;
    if (places[i] >= l->tokens) return refuse(l, "tokens name an expert twice, beyond its room");
  }
  return 1;
}

static int is_direct(const params_t *p, const ep_ll *l, int64_t rank) {
  return p->mask == NULL && oi_is_mapped(l->w, (int32_t)rank);
}

// Rows for one rank: claimed there, or slots of this rank.
static int open_rank(const params_t *p, const ep_ll *l, plan_t *plan, int64_t rank) {
  const int32_t *counts = plan->counts + rank * l->local;
  int32_t *first = plan->first + rank * l->local;
  plan->slots[rank] = plan->staged[rank] = NULL;
  if (is_direct(p, l, rank)) {
    _Atomic int32_t *claims = (_Atomic int32_t *)oi_peer_data(l->w, (int32_t)rank, l->at.claims);
    for (int64_t e = 0; e < l->local; e++)
      if (counts[e] > 0) first[e] = atomic_fetch_add(&claims[e], counts[e]);
    return 1;
  }
  int64_t rows = 0;
  for (int64_t e = 0; e < l->local; e++) {
    first[e] = (int32_t)rows;
    rows += counts[e];
  }
  if (oi_is_mapped(l->w, (int32_t)rank)) {
    int64_t room = l->local * l->tokens * l->message_bytes;
    plan->slots[rank] = oi_peer_data(l->w, (int32_t)rank, l->at.slots + l->rank * room);
    return 1;
  }
  if (rows == 0) return 1;
  plan->slots[rank] = plan->staged[rank] = malloc((size_t)(rows * l->message_bytes));
  if (plan->slots[rank] != NULL) return 1;
  return refuse(l, "no memory to stage tokens for ranks behind a link");
}

static int prepare(const params_t *p, const ep_ll *l, plan_t *plan) {
  if (!count_selections(p, l)) return 0;
  for (int64_t i = 0; i < l->size; i++) {
    int32_t peer = (int32_t)((l->rank + i) % l->size);
    // What this turn held two dispatches ago may still be in use there.
    if (p->seq > 2 && ep_await(l, p->mask, EP_RELEASED, peer, p->seq - 2, NULL,
                               "that it lets go of the last but one dispatch") < 0)
      return 0;
    if (ep_masked(p->mask, peer)) continue;
    if (!open_rank(p, l, plan, peer)) return 0;
  }
  return 1;
}

static void write_message(const ep_ll *l, uint8_t *to, const token_t *t) {
  memcpy(to, t->x, (size_t)l->row_bytes);
  uint8_t *scales = to + ep_message_scales_at(l);
  if (l->scales) memcpy(scales, t->scales, (size_t)(4 * l->scales));
  memcpy(scales + 4 * l->scales, &t->number, 4);
}

// A row of the packed result. Its scales stay together for now: one store to each of the blocks'
// columns would touch as many pages as there are blocks.
static void write_row(const ep_ll *l, uint8_t *data, int64_t expert, int64_t row,
                      const token_t *t) {
  int64_t at = expert * l->size * l->tokens + row;
  ep_copy(data + l->at.x + at * l->row_bytes, t->x, l->row_bytes, 1);
  uint8_t *scales = data + l->at.row_scales + at * l->scales * 4;
  if (l->scales) memcpy(scales, t->scales, (size_t)(l->scales * 4));
  ((int32_t *)(data + l->at.source))[at] = t->number;
}

static void send_token(const params_t *p, const ep_ll *l, const plan_t *plan, int64_t number,
                       uint8_t *scratch) {
  const uint16_t *x = (const uint16_t *)p->x + number * l->hidden;
  const int64_t *choice = (const int64_t *)p->choice + number * p->topk;
  const int32_t *places = plan->places + number * p->topk;
  token_t t = {.x = (const uint8_t *)x, .number = (int32_t)number};
  if (p->fp8) {
    float *scales = (float *)scratch;
    uint32_t *packed = (uint32_t *)(scratch + ep_align(4 * ep_scale_count(l->hidden)));
    uint8_t *codes = (uint8_t *)packed + ep_align(4 * ep_scale_count(l->hidden));
    ep_cast_row(x, l->hidden, (int)p->round_scale, codes, scales);
    if (p->ue8m0) ep_pack_ue8m0(scales, ep_scale_count(l->hidden), packed);
    t.x = codes;
    t.scales = p->ue8m0 ? packed : (const uint32_t *)scales;
  }
  for (int64_t k = 0; k < p->topk; k++) {
    if (places[k] < 0) continue;
    int64_t rank = choice[k] / l->local, row = plan->first[choice[k]] + places[k];
    if (ep_masked(p->mask, rank)) continue;
    if (is_direct(p, l, rank))
      write_row(l, oi_peer_data(l->w, (int32_t)rank, 0), choice[k] % l->local, row, &t);
    else if (plan->slots[rank] != NULL)
      write_message(l, plan->slots[rank] + row * l->message_bytes, &t);
  }
}

// The note and the flag for one rank, after what is staged.
static void tell_rank(const params_t *p, const ep_ll *l, const plan_t *plan, int32_t rank) {
  const int32_t *counts = plan->counts + rank * l->local;
  int64_t rows = 0;
  for (int64_t e = 0; e < l->local; e++) rows += counts[e];
  int64_t room = l->local * l->tokens * l->message_bytes;
  if (plan->staged[rank] != NULL)
    oi_put(l->w, rank, l->at.slots + l->rank * room, plan->staged[rank], rows * l->message_bytes);
  int direct = is_direct(p, l, rank);
  int64_t bytes = direct ? l->row_bytes + 4 * l->scales + 4 : l->message_bytes;
  ep_count(l->g, p->payload, rank, rows * bytes, plan->staged[rank] != NULL);
  ep_note *note = (ep_note *)(l->w->data + l->at.out_notes + rank * EP_NOTE_STRIDE);
  *note = (ep_note){.seq = p->seq, .tokens = l->tokens, .hidden = l->hidden};
  note->experts = l->experts;
  note->options = l->options;
  note->way = direct ? EP_DIRECT : EP_SLOTS;
  note->rows = rows;
  memcpy(note->numbers, counts, 4 * (size_t)l->local);
  memcpy(note->numbers + l->local, plan->first + rank * l->local, 4 * (size_t)l->local);
  oi_put(l->w, rank, l->at.notes + l->rank * EP_NOTE_STRIDE, note, l->note_bytes);
  oi_signal(l->w, rank, EP_SENT * l->size + l->rank, p->seq);
}

void ep_ll_send(const params_t *p, oi_ctx *ctx) {
  ep_ll l = ep_ll_of(p);
  ep_op *op = p->op;
  plan_t plan = plan_of(p);
  if (ctx->tid == 0) {
    ep_release(&l, p);
    if (!prepare(p, &l, &plan)) ep_stop(op);
  }
  if (ep_stopped(op, ctx)) return;
  for (int64_t t; (t = oi_take(ctx, 1)) < p->token_count;)
    send_token(p, &l, &plan, t, ctx->scratch);
  ep_fence();
  oi_barrier(ctx);
  if (ctx->tid != 0) return;
  for (int64_t i = 1; i <= l.size; i++) {
    int32_t rank = (int32_t)((l.rank + i) % l.size);
    if (!ep_masked(p->mask, rank)) tell_rank(p, &l, &plan, rank);
  }
  if (oi_flush(l.g) != OI_ARRIVED) return;
  for (int64_t rank = 0; rank < l.size; rank++) {
    if (ep_masked(p->mask, rank)) continue;
    free(plan.staged[rank]);
    plan.staged[rank] = NULL;
  }
}

// ---- Receiving

static const ep_note *note_of(const ep_ll *l, int64_t rank) {
  return (const ep_note *)(l->w->data + l->at.notes + rank * EP_NOTE_STRIDE);
}

// Waits for one rank's note and says where its rows lie; those in slots get theirs now.
static int receive_note(const params_t *p, const ep_ll *l, int32_t peer) {
  int64_t *ranges = p->ranges;
  int arrived = ep_await(l, p->mask, EP_SENT, peer, p->seq, p->wait_cost, "the tokens of dispatch");
  if (arrived < 0) return 0;
  const ep_note *note = arrived ? note_of(l, peer) : NULL;
  if (note != NULL && !ep_note_fits(l, note, peer)) return 0;
  _Atomic int32_t *claims = (_Atomic int32_t *)(l->w->data + l->at.claims);
  for (int64_t e = 0; e < l->local; e++) {
    int64_t rows = note == NULL ? 0 : note->numbers[e], first = 0;
    if (rows > 0)
      first = note->way == EP_DIRECT ? note->numbers[l->local + e]
                                     : atomic_fetch_add(&claims[e], (int32_t)rows);
    ranges[e * l->size + peer] = first << 32 | rows;
    ((int32_t *)p->received)[e] += (int32_t)rows;
  }
  return 1;
}

// Rows of one expert from one rank's slots to the packed result.
static void pack(const params_t *p, const ep_ll *l, int64_t expert, int64_t rank) {
  if (ep_masked(p->mask, rank)) return;
  const ep_note *note = note_of(l, rank);
  int64_t range = ((const int64_t *)p->ranges)[expert * l->size + rank];
  int64_t rows = range & 0xffffffff, first = range >> 32;
  if (rows == 0 || note->way == EP_DIRECT) return;
  int64_t room = l->local * l->tokens * l->message_bytes;
  const uint8_t *from = l->w->data + l->at.slots + rank * room +
                        note->numbers[l->local + expert] * l->message_bytes;
  for (int64_t i = 0; i < rows; i++, from += l->message_bytes) {
    const uint8_t *scales = from + ep_message_scales_at(l);
    token_t t = {.x = from, .scales = (const uint32_t *)scales};
    memcpy(&t.number, scales + 4 * l->scales, 4);
    write_row(l, l->w->data, expert, first + i, &t);
  }
}

// The scales of an expert's rows to where they belong: by block, then row.
static void transpose_scales(const params_t *p, const ep_ll *l, int64_t expert) {
  int64_t rows = l->size * l->tokens, count = ((const int32_t *)p->received)[expert];
  const uint32_t *from = (const uint32_t *)(l->w->data + l->at.row_scales);
  uint32_t *to = (uint32_t *)(l->w->data + l->at.scales);
  from += expert * rows * l->scales;
  to += expert * rows * l->scales;
  for (int64_t i = 0; i < l->scales; i++)
    for (int64_t row = 0; row < count; row++) to[i * rows + row] = from[row * l->scales + i];
}

void ep_ll_receive(const params_t *p, oi_ctx *ctx) {
  ep_ll l = ep_ll_of(p);
  ep_op *op = p->op;
  if (ctx->tid == 0) {
    memset(p->received, 0, 4 * (size_t)l.local);
    for (int64_t i = 0; i < l.size; i++)
      if (!receive_note(p, &l, (int32_t)((l.rank + i) % l.size))) {
        ep_stop(op);
        break;
      }
  }
  if (ep_stopped(op, ctx)) return;
  for (int64_t i; (i = oi_take(ctx, 1)) < l.local * l.size;) pack(p, &l, i / l.size, i % l.size);
  if (l.scales > 0) {
    ep_restart(ctx);
    for (int64_t e; (e = oi_take(ctx, 1)) < l.local;) transpose_scales(p, &l, e);
  }
  if (ctx->tid != 0 || p->statistics == NULL) return;
  for (int64_t e = 0; e < l.local; e++)
    ((int32_t *)p->statistics)[e] += ((const int32_t *)p->received)[e];
}
