// One collective operation as a rank runs it: who the members are (hf_frame, filled by
// src/frame.ts), waits and signals of all threads of the launch, and the greeting, in which members
// tell each other what they bring before anything is touched.
#pragma once
#include "oi_ranks.h"
#include "hfreduce_fold.h"

enum { HF_ALLREDUCE, HF_REDUCE, HF_BROADCAST, HF_REDUCE_SCATTER, HF_ALL_GATHER };
enum { HF_SMALL, HF_TREE, HF_RING };

// A neighbour between nodes: its rank in the world (−1: none), which of the lanes it serves this
// is, and which of its children this rank is.
typedef struct hf_edge {
  int64_t rank, slot, child;
} hf_edge;
typedef struct hf_branch {
  hf_edge parent, children[2];
} hf_branch;
// A lane is a share of the elements; one rank of each node serves it.
typedef struct hf_lane {
  int64_t lane;
  hf_branch trees[2];
  hf_edge left, right;
} hf_lane;

typedef struct hf_frame {
  int64_t members, me;  // members are numbered by rank, node after node
  int64_t nodes, node, lanes, owned;
  int64_t locals, local;  // members of this node, and which of them this is
  int64_t same_process;
  int64_t max_devices, slot_bytes, slots, local_slots;
  int64_t small_bytes, head_bytes;
  int64_t at_heads, at_own_head, at_lanes, at_stage, at_result, stage_bytes;
  int64_t flag_head, flag_done, flag_lane, flag_staged, flag_taken, flag_result, flag_collected;
  const int64_t *ranks;       // [members]: in the world
  const int64_t *node_start;  // [nodes + 1]: first member of each
  oi_window *const *windows;  // those whose memory peers read in place
  _Atomic int64_t status[2];
} hf_frame;

// A device's buffer: an address in this process (window 0), or a place in a shared window.
typedef struct hf_buffer {
  int64_t window, at;
} hf_buffer;

// What each tells the others first.
typedef struct hf_header {
  int64_t seq, kind, count, dtype, op, wire, root, algorithm, devices, chunk, flags, unused;
  hf_buffer buffers[];  // sources of each device, then destinations
} hf_header;
enum { HF_NO_BUFFER = -1 };

typedef struct hf_op {
  const params_t *p;
  hf_frame *f;
  oi_window *w;
  oi_group *g;
  oi_ctx *ctx;
  const hf_lane *lanes;
  int64_t waits;   // of all threads so far
  int64_t direct;  // the buffers of every rank of the node can be touched here
  int64_t turns;
  elem_t *const *own_sources, *const *own_outs;
  // Of all ranks of the node, device by device, where they can be touched.
  elem_t *sources[HF_SOURCES], *outs[HF_SOURCES];
  hf_fold fold;
} hf_op;

static inline int64_t hf_rank(const hf_op *o, int64_t member) { return o->f->ranks[member]; }
static inline int64_t hf_local_rank(const hf_op *o, int64_t local) {
  return hf_rank(o, o->f->node_start[o->f->node] + local);
}

// Flags of an operation count from its number on, so that nothing is ever reset.
static inline int64_t hf_value(const hf_op *o, int64_t index) {
  return ((int64_t)o->p->seq << 24) + index + 1;
}

// All threads learn how thread 0's wait ended. Two words in turn: one is written again only when
// all have come to the wait after the next.
static int hf_agree(hf_op *o, int32_t code) {
  if (o->ctx->nthreads == 1) return code != OI_ARRIVED;
  _Atomic int64_t *status = &o->f->status[o->waits++ & 1];
  if (o->ctx->tid == 0) atomic_store_explicit(status, code, memory_order_relaxed);
  oi_barrier(o->ctx);
  return atomic_load_explicit(status, memory_order_relaxed) != OI_ARRIVED;
}

static inline int32_t hf_await(hf_op *o, int64_t flag, int64_t value, int64_t rank,
                               const char *awaited) {
  return oi_wait(o->w, flag, value, (int32_t)rank, awaited);
}

// Called by thread 0 after oi_barrier: bytes that may already lie at the peer, and word of them.
static inline void hf_send(hf_op *o, int64_t rank, int64_t offset, const void *own, int64_t bytes) {
  if (oi_is_mapped(o->w, (int32_t)rank)) oi_count(o->g, (int32_t)rank, bytes, 1);
  else oi_put(o->w, (int32_t)rank, offset, own, bytes);
}

// ---- The greeting

static inline int64_t hf_head_stride(const hf_frame *f) { return f->head_bytes + f->small_bytes; }
static inline int64_t hf_head_at(const hf_op *o, int64_t member) {
  const hf_frame *f = o->f;
  int64_t parity = (int64_t)o->p->seq & 1;
  return f->at_heads + (parity * f->members + member) * hf_head_stride(f);
}
static inline hf_header *hf_head_of(const hf_op *o, int64_t member) {
  return (hf_header *)(o->w->data + hf_head_at(o, member));
}
static inline hf_header *hf_own_head(const hf_op *o) {
  int64_t parity = (int64_t)o->p->seq & 1;
  int64_t at = o->f->at_own_head + parity * o->f->members * hf_head_stride(o->f);
  return (hf_header *)(o->w->data + at);
}

static void write_head(const hf_op *o, hf_header *h) {
  const params_t *p = o->p;
  h->seq = p->seq;
  h->kind = p->kind;
  h->count = p->elements;
  h->dtype = p->dtype;
  h->op = OP;
  h->wire = WIRE;
  h->root = p->root;
  h->algorithm = p->algorithm;
  h->devices = p->devices;
  h->chunk = p->chunk;
  h->flags = 0;
  memcpy(h->buffers, p->buffers, sizeof(hf_buffer) * 2 * (size_t)p->devices);
}

static int differs(hf_op *o, int64_t member, const char *what, int64_t own, int64_t theirs) {
  if (own == theirs) return 0;
  static const char *const kinds[] = {"allreduce", "reduce", "broadcast", "reduce-scatter",
                                      "all-gather"};
  static const char *const types[] = {"f32", "bf16", "f16",  "e4m3fn", "e5m2", "f64",
                                      "i32", "i64",  "ue8m0", "u8",     "e2m1"};
  static const char *const ops[] = {"sum", "avg", "max", "min", "none"};
  static const char *const ways[] = {"small", "tree", "ring"};
  char text[96];
  const char *const *names = NULL;
  int64_t known = 0;
  if (strcmp(what, "operation") == 0) names = kinds, known = 5;
  if (strcmp(what, "dtype") == 0) names = types, known = 11;
  if (strcmp(what, "op") == 0) names = ops, known = 5;
  if (strcmp(what, "algorithm") == 0) names = ways, known = 3;
  if (names != NULL && own >= 0 && own < known && theirs >= 0 && theirs < known)
    snprintf(text, sizeof text, "the %s is %s here, but %s", what, names[own], names[theirs]);
  else
    snprintf(text, sizeof text, "the %s is %lld here, but %lld", what, (long long)own,
             (long long)theirs);
  oi_fail(o->g, OI_BAD_DATA, (int32_t)hf_rank(o, member), theirs, own, 0, text);
  return 1;
}

static int check_head(hf_op *o, int64_t member) {
  const params_t *p = o->p;
  const hf_header *h = hf_head_of(o, member);
  return differs(o, member, "operation", p->kind, h->kind) ||
         differs(o, member, "count", p->elements, h->count) ||
         differs(o, member, "dtype", p->dtype, h->dtype) || differs(o, member, "op", OP, h->op) ||
         differs(o, member, "root", p->root, h->root) ||
         differs(o, member, "number of devices", p->devices, h->devices) ||
         differs(o, member, "algorithm", p->algorithm, h->algorithm) ||
         differs(o, member, "wire", WIRE, h->wire) ||
         differs(o, member, "chunk", p->chunk, h->chunk);
}

// A buffer of a rank of this node, or null if it cannot be touched here.
static elem_t *buffer_of(const hf_op *o, int64_t rank, hf_buffer b) {
  if (b.window == HF_NO_BUFFER) return NULL;
  if (b.window == 0) return (elem_t *)(intptr_t)b.at;
  return (elem_t *)(o->f->windows[b.window - 1]->peers[rank].data + b.at);
}

// Whether all buffers of the node can be touched, and where. Every rank of the node reads the same
// headers and comes to the same answer.
static void find_buffers(hf_op *o) {
  const hf_frame *f = o->f;
  int64_t devices = o->p->devices, first = f->node_start[f->node];
  o->direct = 1;
  for (int64_t j = 0; j < f->locals; j++) {
    const hf_header *h = j == f->local ? hf_own_head(o) : hf_head_of(o, first + j);
    for (int64_t b = 0; b < 2 * devices; b++) {
      if (h->buffers[b].window == 0 && !f->same_process && f->locals > 1) o->direct = 0;
    }
    for (int64_t d = 0; d < devices; d++) {
      int64_t rank = hf_rank(o, first + j);
      o->sources[j * devices + d] = buffer_of(o, rank, h->buffers[d]);
      o->outs[j * devices + d] = buffer_of(o, rank, h->buffers[devices + d]);
    }
  }
  o->own_sources = o->sources + f->local * devices;
  o->own_outs = o->outs + f->local * devices;
}

// The same for this rank's alone.
static void find_own_buffers(hf_op *o) {
  int64_t devices = o->p->devices, rank = hf_rank(o, o->f->me);
  const hf_header *h = hf_own_head(o);
  for (int64_t b = 0; b < devices; b++) {
    o->sources[b] = buffer_of(o, rank, h->buffers[b]);
    o->outs[b] = buffer_of(o, rank, h->buffers[devices + b]);
  }
  o->own_sources = o->sources;
  o->own_outs = o->outs;
}

// Waits until those that the last operation had to do with are done with it: what lies in their
// windows, and what was put from here, may then be written anew.
static int32_t await_last(hf_op *o) {
  const params_t *p = o->p;
  const int64_t *last = p->last;
  for (int64_t i = 0; i < p->last_count; i++) {
    int64_t member = last[i];
    int32_t code = hf_await(o, o->f->flag_done + member, p->last_seq, hf_rank(o, member),
                            "the end of the operation before");
    if (code != OI_ARRIVED) return code;
  }
  return OI_ARRIVED;
}

// Thread 0: tells those of p->greets what this rank brings.
static void greet(hf_op *o) {
  const hf_frame *f = o->f;
  const int64_t *greets = o->p->greets;
  for (int64_t i = 0; i < o->p->greet_count; i++) {
    int64_t rank = hf_rank(o, greets[i]);
    oi_put(o->w, (int32_t)rank, hf_head_at(o, f->me), hf_own_head(o), f->head_bytes);
    oi_signal(o->w, (int32_t)rank, f->flag_head + f->me, o->p->seq);
  }
}

static int32_t await_greetings(hf_op *o) {
  const int64_t *greets = o->p->greets;
  for (int64_t i = 0; i < o->p->greet_count; i++) {
    int64_t member = greets[i];
    int32_t code = hf_await(o, o->f->flag_head + member, o->p->seq, hf_rank(o, member),
                            "the beginning of the operation");
    if (code != OI_ARRIVED) return code;
    if (check_head(o, member)) return OI_BAD_DATA;
  }
  return OI_ARRIVED;
}

// The end: all that was awaited has come. Those of the node are waited for where they touch this
// rank's buffers.
static int finish(hf_op *o) {
  oi_barrier(o->ctx);
  int32_t code = OI_ARRIVED;
  if (o->ctx->tid == 0) {
    const hf_frame *f = o->f;
    const int64_t *greets = o->p->greets;
    for (int64_t i = 0; i < o->p->greet_count; i++)
      oi_signal(o->w, (int32_t)hf_rank(o, greets[i]), f->flag_done + f->me, o->p->seq);
    int64_t first = f->node_start[f->node];
    for (int64_t j = 0; j < f->locals && o->direct && code == OI_ARRIVED; j++) {
      if (j != f->local)
        code = hf_await(o, f->flag_done + first + j, o->p->seq, hf_rank(o, first + j),
                        "the end of the operation");
    }
  }
  return hf_agree(o, code);
}
