// One collective operation on all threads of a launch: greeting, turns, end. What each kind does in
// a turn is in hfreduce_tree.h and hfreduce_ring.h, within a node in hfreduce_node.h, and for
// little data in hfreduce_small.h.
#include "hfreduce_ring.h"
#include "hfreduce_small.h"

static inline int by_ring(const hf_op *o) { return o->p->algorithm == HF_RING; }

static hf_range turn_source(const hf_op *o, int64_t turn, int64_t lane, int64_t branch) {
  if (!by_ring(o)) return tree_range(o, turn, lane, branch);
  if (branch > 0 || ring_step(o, turn) >= o->f->nodes) return (hf_range){0, 0};
  return ring_range(o, turn, lane);
}

static hf_range turn_result(const hf_op *o, int64_t turn, int64_t lane, int64_t branch) {
  if (!by_ring(o)) return tree_range(o, turn - tree_lag(o), lane, branch);
  if (branch > 0) return (hf_range){0, 0};
  return ring_range(o, turn, lane);
}

static inline int has_results(const hf_op *o, int64_t turn) {
  if (by_ring(o)) return ring_step(o, turn) >= o->f->nodes - 1;
  return turn >= tree_lag(o);
}

// A lone node whose ranks touch each other's buffers has no use for chunks.
static int run_turns(hf_op *o) {
  o->turns = by_ring(o) ? ring_turns(o) : tree_turns(o);
  if (stage_turn(o, 0)) return 1;
  for (int64_t turn = 0; turn < o->turns; turn++) {
    if (stage_turn(o, turn + 1) || begin_turn(o, turn)) return 1;
    if (by_ring(o) ? ring_turn(o, turn) : tree_turn(o, turn)) return 1;
    end_turn(o, turn);
    if (collect_turn(o, turn - 1)) return 1;
  }
  return collect_turn(o, o->turns - 1);
}

void hfreduce(const params_t *p, oi_ctx *ctx) {
  hf_op op;
  hf_op *o = &op;
  o->p = p;
  o->ctx = ctx;
  o->f = p->frame;
  o->w = p->window;
  o->g = o->w->group;
  o->lanes = p->lanes;
  o->waits = 0;
  o->fold.sum_out = NULL;
  o->fold.partial_out = NULL;
  int32_t code = OI_ARRIVED;
  if (ctx->tid == 0) {
    code = await_last(o);
    if (code == OI_ARRIVED) {
      write_head(o, hf_own_head(o));
      if (p->algorithm == HF_SMALL) {
        find_own_buffers(o);
        code = small_operation(o);
      } else {
        greet(o);
        code = await_greetings(o);
      }
    }
  }
  if (hf_agree(o, code)) return;
  if (p->algorithm == HF_SMALL) {
    o->direct = 0;
  } else {
    find_buffers(o);
    params_t whole = *p;
    if (o->direct && o->f->nodes == 1) {
      whole.chunk = INT64_MAX / 2;
      o->p = &whole;
    }
    if (run_turns(o)) return;
    o->p = p;
  }
  finish(o);
}
