// Low-latency combine. Rows of an expert that came from one rank lie together, in the order of its
// tokens, so they go back as one piece: into slots of that rank, or they stay in the shared buffer
// (zero copy) and that rank reads them there. It then sums its tokens' rows, weighted, in the order
// of the selection.
#include "ep_ll.h"
#include "ep_logfmt.h"

static int64_t range_of(const params_t *p, const ep_ll *l, int64_t expert, int64_t rank) {
  return ((const int64_t *)p->ranges)[expert * l->size + rank];
}
static int64_t rows_of(int64_t range) { return range & 0xffffffff; }
static int64_t slots_at(const ep_ll *l, int64_t rank) {
  return l->at.returned + rank * l->local * l->tokens * l->message_bytes;
}
static const uint16_t *row_of(const params_t *p, const ep_ll *l, int64_t expert, int64_t row) {
  return (const uint16_t *)p->x + (expert * l->size * l->tokens + row) * l->hidden;
}

static int64_t way_to(const params_t *p, const ep_ll *l, int64_t rank) {
  if (p->logfmt) return EP_LOGFMT;
  return p->zero_copy && oi_is_mapped(l->w, (int32_t)rank) ? EP_PULL : EP_PUSH;
}

// Where the row of each rank and expert begins among those returned to the rank.
static int64_t returned_before(const params_t *p, const ep_ll *l, int64_t expert, int64_t rank) {
  int64_t rows = 0;
  for (int64_t e = 0; e < expert; e++) rows += rows_of(range_of(p, l, e, rank));
  return rows;
}

// The rows that one rank gets from one expert, as they are.
static void push(const params_t *p, const ep_ll *l, int64_t expert, int64_t rank) {
  int64_t range = range_of(p, l, expert, rank), rows = rows_of(range), row = 2 * l->hidden;
  if (rows == 0 || ep_masked(p->mask, rank) || way_to(p, l, rank) != EP_PUSH) return;
  int64_t at = slots_at(l, l->rank) + returned_before(p, l, expert, rank) * row;
  const uint8_t *from = (const uint8_t *)row_of(p, l, expert, range >> 32);
  int direct = oi_is_mapped(l->w, (int32_t)rank);
  if (direct) ep_copy(oi_peer_data(l->w, (int32_t)rank, at), from, rows * row, 1);
  else oi_put(l->w, (int32_t)rank, at, from, rows * row);
  ep_count(l->g, p->payload, (int32_t)rank, rows * row, !direct);
}

// LogFMT: a table of offsets (rows + 1), then the rows, each coded or as it is.
typedef struct coded_t {
  uint8_t *to, *staged;
  int64_t rows;
} coded_t;

static int open_coded(const params_t *p, const ep_ll *l, int64_t rank, coded_t *c) {
  c->rows = returned_before(p, l, l->local, rank);
  c->to = c->staged = NULL;
  if (c->rows == 0) return 1;
  int64_t at = slots_at(l, l->rank);
  if (oi_is_mapped(l->w, (int32_t)rank)) c->to = oi_peer_data(l->w, (int32_t)rank, at);
  else c->to = c->staged = malloc((size_t)(l->local * l->tokens * l->message_bytes));
  if (c->to == NULL) return 0;
  int32_t *table = (int32_t *)c->to;
  int64_t end = 4 * (c->rows + 1), i = 0;
  for (int64_t e = 0; e < l->local; e++) {
    int64_t range = range_of(p, l, e, rank);
    for (int64_t r = 0; r < rows_of(range); r++) {
      int fits = ep_log_fits(row_of(p, l, e, (range >> 32) + r), l->hidden);
      // Rows begin on words, which leaves a bit for how the row is written.
      table[i++] = (int32_t)end | fits;
      end += fits ? ep_log_bytes(l->hidden) : 2 * l->hidden;
      end = (end + 3) & ~(int64_t)3;
    }
  }
  table[i] = (int32_t)end;
  return 1;
}

static void push_coded(const params_t *p, const ep_ll *l, int64_t rank) {
  coded_t c;
  if (!open_coded(p, l, rank, &c)) {
    oi_fail(l->g, OI_BAD_DATA, (int32_t)l->rank, 0, 0, 0, "no memory to stage rows");
    return;
  }
  if (c.rows == 0) return;
  int32_t *table = (int32_t *)c.to;
  int64_t i = 0;
  for (int64_t e = 0; e < l->local; e++) {
    int64_t range = range_of(p, l, e, rank);
    for (int64_t r = 0; r < rows_of(range); r++, i++) {
      const uint16_t *x = row_of(p, l, e, (range >> 32) + r);
      uint8_t *to = c.to + (table[i] & ~1);
      if (table[i] & 1) ep_log_encode(x, l->hidden, to, p->mantissas);
      else memcpy(to, x, (size_t)(2 * l->hidden));
    }
  }
  if (c.staged != NULL) oi_put(l->w, (int32_t)rank, slots_at(l, l->rank), c.staged, table[i]);
  ep_count(l->g, p->payload, (int32_t)rank, table[i], c.staged != NULL);
  ((uint8_t **)p->plan)[rank] = c.staged;
}

// The note and the flag for one rank.
static void tell_rank(const params_t *p, const ep_ll *l, int32_t rank) {
  ep_note *note = (ep_note *)(l->w->data + l->at.out_return_notes + rank * EP_RETURN_STRIDE);
  *note = (ep_note){.seq = p->seq, .tokens = l->tokens, .hidden = l->hidden};
  note->experts = l->experts;
  note->options = l->options;
  note->way = way_to(p, l, rank);
  note->rows = returned_before(p, l, l->local, rank);
  for (int64_t e = 0; e < l->local; e++)
    note->numbers[e] = (int32_t)(range_of(p, l, e, rank) >> 32);
  oi_put(l->w, rank, l->at.return_notes + l->rank * EP_RETURN_STRIDE, note,
         l->return_note_bytes);
  oi_signal(l->w, rank, EP_RETURNED * l->size + l->rank, p->seq);
}

void ep_ll_return(const params_t *p, oi_ctx *ctx) {
  ep_ll l = ep_ll_of(p);
  ep_op *op = p->op;
  for (int64_t i = 0; ctx->tid == 0 && p->seq > 2 && i < l.size; i++) {
    // Its slots of this turn, or this rank's shared buffer, may still be read there.
    if (ep_await(&l, p->mask, EP_CONSUMED, (int32_t)((l.rank + i) % l.size), p->seq - 2, NULL,
                 "that it has summed the last but one combine") < 0) {
      ep_stop(op);
      break;
    }
  }
  if (ep_stopped(op, ctx)) return;
  if (p->logfmt) {
    for (int64_t rank; (rank = oi_take(ctx, 1)) < l.size;)
      if (!ep_masked(p->mask, rank)) push_coded(p, &l, rank);
  } else {
    for (int64_t i; (i = oi_take(ctx, 1)) < l.local * l.size;) push(p, &l, i / l.size, i % l.size);
  }
  ep_fence();
  oi_barrier(ctx);
  if (ctx->tid != 0) return;
  for (int64_t i = 1; i <= l.size; i++) {
    int32_t rank = (int32_t)((l.rank + i) % l.size);
    if (!ep_masked(p->mask, rank)) tell_rank(p, &l, rank);
  }
  ep_release(&l, p);
  if (oi_flush(l.g) != OI_ARRIVED) return;
  for (int64_t rank = 0; p->logfmt && rank < l.size; rank++) free(((uint8_t **)p->plan)[rank]);
}

// ---- Summing

static const ep_note *note_of(const ep_ll *l, int64_t rank) {
  return (const ep_note *)(l->w->data + l->at.return_notes + rank * EP_RETURN_STRIDE);
}

// The first of this rank's selections of an expert among those of the expert's rank.
static int64_t selected_before(const params_t *p, const ep_ll *l, int64_t expert) {
  const int32_t *counts = p->counts;
  int64_t rows = 0;
  for (int64_t e = expert / l->local * l->local; e < expert; e++) rows += counts[e];
  return rows;
}

typedef struct term_t {
  const uint16_t *row;
  const float *values;  // if it was coded
  float weight;
} term_t;

// The row that expert `expert` made of this rank's selection number `place`.
static term_t find_row(const params_t *p, const ep_ll *l, int64_t expert, int64_t place,
                       float *decoded) {
  int64_t rank = expert / l->local;
  const ep_note *note = note_of(l, rank);
  term_t term = {0};
  if (note->way == EP_PULL) {
    int64_t row = expert % l->local * l->size * l->tokens;
    row += note->numbers[expert % l->local] + place;
    term.row = (const uint16_t *)oi_peer_data(l->w, (int32_t)rank, l->at.shared) + row * l->hidden;
    return term;
  }
  const uint8_t *slots = l->w->data + slots_at(l, rank);
  int64_t row = selected_before(p, l, expert) + place;
  if (note->way == EP_PUSH) {
    term.row = (const uint16_t *)slots + row * l->hidden;
    return term;
  }
  const int32_t *table = (const int32_t *)slots;
  const uint8_t *from = slots + (table[row] & ~1);
  if (!(table[row] & 1)) {
    term.row = (const uint16_t *)from;
    return term;
  }
  ep_log_decode(from, l->hidden, decoded, p->mantissas);
  term.values = decoded;
  return term;
}

// Elements between what is added and what is asked for: rows are too many for memory to run ahead.
enum { EP_AHEAD = 512 };

static inline __attribute__((always_inline)) void sum_columns(uint16_t *out, const term_t *terms,
                                                              int64_t count, int64_t c,
                                                              int vectors) {
  vf sum[4];
  for (int v = 0; v < vectors; v++) sum[v] = vf_zero();
  for (int64_t i = 0; i < count; i++) {
    vf weight = vf_set(terms[i].weight);
    for (int v = 0; v < vectors; v++) {
      int64_t at = c + v * OI_VF;
      if (vectors > 1 && terms[i].row != NULL) __builtin_prefetch(terms[i].row + at + EP_AHEAD);
      vf x = terms[i].row != NULL ? vf_load_bf16(terms[i].row + at) : vf_load(terms[i].values + at);
      sum[v] = vf_fma(x, weight, sum[v]);
    }
  }
  for (int v = 0; v < vectors; v++) vf_store_bf16(out + c + v * OI_VF, sum[v]);
}

static void sum_terms(uint16_t *out, const term_t *terms, int64_t count, int64_t hidden) {
  int64_t c = 0;
  for (; c + 4 * OI_VF <= hidden; c += 4 * OI_VF) sum_columns(out, terms, count, c, 4);
  for (; c + OI_VF <= hidden; c += OI_VF) sum_columns(out, terms, count, c, 1);
  for (; c < hidden; c++) {
    float sum = 0;
    for (int64_t i = 0; i < count; i++) {
      float x = terms[i].row != NULL ? bf16_to_f32(terms[i].row[c]) : terms[i].values[c];
      sum = __builtin_fmaf(x, terms[i].weight, sum);
    }
    out[c] = f32_to_bf16(sum);
  }
}

static void sum_token(const params_t *p, const ep_ll *l, int64_t t, float *scratch) {
  const int64_t *choice = (const int64_t *)p->choice + t * p->topk;
  const int32_t *places = (const int32_t *)p->places + t * p->topk;
  const float *weights = (const float *)p->weights + t * p->topk;
  int64_t padded = ep_scale_count(l->hidden) * 128, count = 0;
  term_t terms[p->topk + 1];
  for (int64_t k = 0; k < p->topk; k++) {
    if (choice[k] < 0 || places[k] < 0 || ep_masked(p->mask, choice[k] / l->local)) continue;
    terms[count] = find_row(p, l, choice[k], places[k], scratch + count * padded);
    terms[count++].weight = weights[k];
  }
  sum_terms((uint16_t *)p->out + t * l->hidden, terms, count, l->hidden);
}

void ep_ll_sum(const params_t *p, oi_ctx *ctx) {
  ep_ll l = ep_ll_of(p);
  ep_op *op = p->op;
  for (int64_t i = 0; ctx->tid == 0 && i < l.size; i++) {
    int32_t peer = (int32_t)((l.rank + i) % l.size);
    int arrived =
        ep_await(&l, p->mask, EP_RETURNED, peer, p->seq, p->wait_cost, "the rows of combine");
    if (arrived < 0 || (arrived && !ep_note_fits(&l, note_of(&l, peer), peer))) {
      ep_stop(op);
      break;
    }
  }
  if (ep_stopped(op, ctx)) return;
  for (int64_t t; (t = oi_take(ctx, 1)) < p->token_count;) sum_token(p, &l, t, ctx->scratch);
  oi_barrier(ctx);
  if (ctx->tid == 0) ep_tell_all(&l, p->mask, EP_CONSUMED, p->seq);
}
