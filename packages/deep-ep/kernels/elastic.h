// What the kernels of ElasticBuffer share: the window's layout and flags, the message by which
// ranks tell each other where to write and read, records, and rows.
//
// Every operation of a buffer has an epoch, the same on all ranks. It begins with a message to
// each contact ("ready": where my results go, where my operands lie), which also gives leave to
// write into this rank's window: who has sent it has finished the operation before. Whoever has
// put all that a rank awaits raises that rank's flag to the epoch.
#pragma once
#include <sched.h>
#include "ep_common.h"

// A rank's flags in the window: so many of each kind, one for each rank.
enum {
  F_COUNTS,   // the counts of a dispatch
  F_READY,    // the message of an operation
  F_DATA,     // what comes within a node, or directly
  F_FORWARD,  // what comes from other nodes
  F_DONE,     // this rank's operands have been read
  F_BARRIER,
  F_GATHERED,     // an all-gather's part
  F_SESSION_END,  // of all-gathers
  F_ASKED,        // indices of embeddings
  F_ANSWERED,
  F_TOUCHED,   // odd while that rank touches this one's memory; of this rank itself: it has failed
  F_PIPELINE,  // 4 flags a rank pair: see elastic_pipeline.c
  F_KINDS = F_PIPELINE + 4
};

// The words of a message. The first ones must be the same on both sides.
enum {
  M_OPERATION,
  M_MAX_TOKENS,
  M_ROW_BYTES,
  M_TOPK,
  M_EXPERTS,
  M_ALIGNMENT,
  M_SF_PACKS,
  M_WEIGHTED,
  M_EXPANDED,
  M_SAME,  // so many words are compared
  M_X = M_SAME,
  M_SF,
  M_SF_TOKEN_STRIDE,
  M_SF_PACK_STRIDE,
  M_IDX,
  M_WEIGHTS,
  M_META,
  M_WORDS = 16
};
static const char *const message_names[M_SAME] = {
    "operation", "numMaxTokensPerRank", "bytes of a token", "numTopk",          "numExperts",
    "expertAlignment", "scale packs of a token", "topkWeights given", "doExpand"};
static const char *const operation_names[] = {"?", "dispatch", "cached dispatch", "combine"};

// How this rank reaches another: its memory as its own (threads of a process), its window alone,
// or a link.
enum { REACH_LINK = 0, REACH_WINDOW = 1, REACH_MEMORY = 2 };

// Shared by a launch's threads; zero before the first one. `tables` is the first thread's memory.
typedef struct {
  _Atomic int64_t next[8];
  int64_t code;
  void *tables;
  void *staging;
} elastic_work;

static inline int64_t align_up(int64_t x, int64_t to) { return (x + to - 1) / to * to; }

static inline int64_t take(elastic_work *work, int which, int64_t chunk) {
  return atomic_fetch_add_explicit(&work->next[which], chunk, memory_order_relaxed);
}

// Everyone's bytes are written before, everyone learns how the first thread's waits ended.
static inline int all_go_on(oi_ctx *ctx, elastic_work *work) {
  ep_fence();  // rows may have gone past the caches
  oi_barrier(ctx);
  int go_on = work->code == OI_ARRIVED;
  oi_barrier(ctx);  // nobody writes the code before all have read it
  return go_on;
}

// ---- Messages

static inline int64_t message_offset(const oi_group *g, int64_t base, int64_t epoch, int32_t from) {
  return base + ((epoch & 1) * g->size + from) * M_WORDS * 8;
}

static inline const int64_t *message_of(const oi_window *w, int64_t base, int64_t epoch,
                                        int32_t from) {
  return (const int64_t *)(w->data + message_offset(w->group, base, epoch, from));
}

static inline void send_message(oi_window *w, int64_t base, int64_t epoch, int32_t to,
                                const int64_t *words) {
  oi_group *g = w->group;
  int64_t at = message_offset(g, base, epoch, g->rank);
  if (oi_is_mapped(w, to)) memcpy(oi_peer_data(w, to, at), words, M_WORDS * 8);
  else oi_put(w, to, at, words, M_WORDS * 8);
  oi_signal(w, to, (int64_t)F_READY * g->size + g->rank, epoch);
}

// Whether a peer does what this rank does; else the failure names what differs.
static inline int32_t same_message(oi_group *g, int32_t peer, const int64_t *theirs,
                                   const int64_t *own) {
  for (int i = 0; i < M_SAME; i++) {
    if (theirs[i] == own[i]) continue;
    char text[96];
    if (i == M_OPERATION)
      snprintf(text, sizeof text, "the operation is %s there, %s here",
               operation_names[theirs[i] & 3], operation_names[own[i] & 3]);
    else
      snprintf(text, sizeof text, "%s is %lld there, %lld here", message_names[i],
               (long long)theirs[i], (long long)own[i]);
    return oi_fail(g, OI_BAD_DATA, peer, theirs[i], own[i], 0, text);
  }
  return OI_ARRIVED;
}

static inline int32_t await_message(oi_window *w, int64_t base, int64_t epoch, int32_t peer,
                                    const int64_t *own) {
  oi_group *g = w->group;
  int32_t code = oi_wait(w, (int64_t)F_READY * g->size + peer, epoch, peer,
                         "word that it is ready for this operation");
  if (code != OI_ARRIVED) return code;
  return same_message(g, peer, message_of(w, base, epoch, peer), own);
}

static inline void raise(oi_window *w, int kind, int64_t epoch, int32_t peer) {
  oi_signal(w, peer, (int64_t)kind * w->group->size + w->group->rank, epoch);
}

static inline int32_t await(oi_window *w, int kind, int64_t epoch, int32_t peer,
                            const char *awaited) {
  return oi_wait(w, (int64_t)kind * w->group->size + peer, epoch, peer, awaited);
}

// ---- Records: a token as it lies in a window, in parts aligned to 32 bytes

typedef struct {
  int64_t sf, meta, bytes;  // offsets of the parts, and all
} record_t;

// Meta: topk_idx [K] i32, weights [K] f32, source i32, slots [K] i32; where it is to be forwarded,
// also its places [K] i32.
static inline record_t record_of(int64_t row_bytes, int64_t sf_packs, int64_t topk, int forwarded) {
  record_t r;
  r.sf = align_up(row_bytes, 32);
  r.meta = r.sf + align_up(sf_packs * 4, 32);
  r.bytes = r.meta + align_up(8 * topk + 4 * (1 + topk) + (forwarded ? 4 * topk : 0), 32);
  return r;
}

// ---- Rows

// Long rows go past the caches: their reader is another core, and much later.
static inline void copy_row(uint8_t *to, const uint8_t *from, int64_t bytes) {
  ep_copy(to, from, bytes, bytes >= 1024);
}

// What one row of the result is a sum of: in the order of the group of rows that each was summed
// from, whose sum is rounded to bf16 first. `end[g]` is where group g ends among the rows.
typedef struct {
  const uint16_t **row;
  int32_t *end;
  int32_t rows, groups;
} terms_t;

static inline void add_term(terms_t *t, const void *row) {
  t->row[t->rows++] = row;
  t->end[t->groups++] = t->rows;
}

static inline vf bf16_rounded(vf v) { return vf_from_bf16_bits(vf_to_bf16_bits(v)); }
static inline float f32_rounded(float v) { return bf16_to_f32(f32_to_bf16(v)); }

static inline __attribute__((always_inline)) vf bias_at(const uint16_t *bias0,
                                                        const uint16_t *bias1, int64_t i) {
  vf sum = bias0 != NULL ? vf_load_bf16(bias0 + i) : vf_zero();
  return bias1 != NULL ? sum + vf_load_bf16(bias1 + i) : sum;
}

// Terms that are rows as they are: four vectors at a time, so that their sums do not wait for each
// other.
static inline int64_t sum_plain(uint16_t *out, const terms_t *t, const uint16_t *bias0,
                                const uint16_t *bias1, int64_t length) {
  int64_t i = 0;
  for (; i + 4 * OI_VF <= length; i += 4 * OI_VF) {
    vf a = bias_at(bias0, bias1, i), b = bias_at(bias0, bias1, i + OI_VF);
    vf c = bias_at(bias0, bias1, i + 2 * OI_VF), d = bias_at(bias0, bias1, i + 3 * OI_VF);
    for (int32_t j = 0; j < t->rows; j++) {
      const uint16_t *row = t->row[j] + i;
      a += vf_load_bf16(row);
      b += vf_load_bf16(row + OI_VF);
      c += vf_load_bf16(row + 2 * OI_VF);
      d += vf_load_bf16(row + 3 * OI_VF);
    }
    vf_store_bf16(out + i, a);
    vf_store_bf16(out + i + OI_VF, b);
    vf_store_bf16(out + i + 2 * OI_VF, c);
    vf_store_bf16(out + i + 3 * OI_VF, d);
  }
  return i;
}

// A group of one row is that row as it is.
static inline int64_t sum_grouped(uint16_t *out, const terms_t *t, const uint16_t *bias0,
                                  const uint16_t *bias1, int64_t length) {
  int64_t i = 0;
  for (; i + OI_VF <= length; i += OI_VF) {
    vf sum = bias_at(bias0, bias1, i);
    int32_t j = 0;
    for (int32_t g = 0; g < t->groups; g++) {
      if (t->end[g] == j + 1) {
        sum += vf_load_bf16(t->row[j++] + i);
        continue;
      }
      vf part = vf_zero();
      for (; j < t->end[g]; j++) part += vf_load_bf16(t->row[j] + i);
      sum += bf16_rounded(part);
    }
    vf_store_bf16(out + i, sum);
  }
  return i;
}

// out = bf16(bias0 + bias1 + terms), added in this order in float32, from zero without biases.
static inline void reduce_row(uint16_t *out, const terms_t *t, const uint16_t *bias0,
                              const uint16_t *bias1, int64_t length) {
  int64_t i = t->rows == t->groups ? sum_plain(out, t, bias0, bias1, length)
                                   : sum_grouped(out, t, bias0, bias1, length);
  for (; i < length; i++) {
    float sum = bias0 != NULL ? bf16_to_f32(bias0[i]) : 0.0f;
    if (bias1 != NULL) sum += bf16_to_f32(bias1[i]);
    int32_t j = 0;
    for (int32_t g = 0; g < t->groups; g++) {
      if (t->end[g] == j + 1) {
        sum += bf16_to_f32(t->row[j++][i]);
        continue;
      }
      float part = 0.0f;
      for (; j < t->end[g]; j++) part += bf16_to_f32(t->row[j][i]);
      sum += f32_rounded(part);
    }
    out[i] = f32_to_bf16(sum);
  }
}

// What a level passes on to the next: one row as it is, several as their rounded sum.
static inline void pass_on(uint8_t *out, const terms_t *t, int64_t length) {
  if (t->rows == 1) copy_row(out, (const uint8_t *)t->row[0], length * 2);
  else reduce_row((uint16_t *)out, t, NULL, NULL, length);
}
