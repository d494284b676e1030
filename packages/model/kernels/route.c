// Chooses each token's experts from the router's logits, then sorts the (token, choice) pairs by
// expert. Ties go to the lower index. The choice of a token depends on its own logits only; the
// sort is a counting sort, so it is stable and the same on any number of threads.
#include <math.h>
#include "rows.h"

// Values of the constants METHOD and SCORING; group_limited_greedy is method 1.
#define GREEDY 0
#define NOAUX_TC 2
#define SIGMOID 1

static void score(float *scores, const float *logits, int64_t n) {
#if SCORING == SIGMOID
  for (int64_t e = 0; e < n; e++) scores[e] = 1.0f / (1.0f + expf(-logits[e]));
#else
  float top = -INFINITY, sum = 0;
  for (int64_t e = 0; e < n; e++) top = logits[e] > top ? logits[e] : top;
  for (int64_t e = 0; e < n; e++) sum += scores[e] = expf(logits[e] - top);
  for (int64_t e = 0; e < n; e++) scores[e] /= sum;
#endif
}

// Index of the largest value not yet taken, the lower one of equals; takes it. NaN is never larger,
// but something free is always returned, so that no logits can lead outside the tables.
static int64_t take_largest(const float *values, uint8_t *taken, int64_t n) {
  int64_t best = -1;
  for (int64_t i = 0; i < n; i++) {
    if (!taken[i] && (best < 0 || values[i] > values[best])) best = i;
  }
  taken[best] = 1;
  return best;
}

#if METHOD != GREEDY
// A group's score: its best expert (V2), or the sum of its best two (V3).
static float group_score(const float *choice, int64_t n) {
  float first = -INFINITY, second = -INFINITY;
  for (int64_t i = 0; i < n; i++) {
    float x = choice[i];
    if (x > first) {
      second = first;
      first = x;
    } else if (x > second) {
      second = x;
    }
  }
  return METHOD == NOAUX_TC && n > 1 ? first + second : first;
}

// Marks every expert outside the best groups as taken.
static void limit_groups(const params_t *p, const float *choice, uint8_t *taken, float *groups) {
  int64_t size = p->experts / p->groups;
  uint8_t *group_taken = taken + p->experts;
  for (int64_t g = 0; g < p->groups; g++) groups[g] = group_score(choice + g * size, size);
  memset(taken, 1, (size_t)p->experts);
  memset(group_taken, 0, (size_t)p->groups);
  for (int64_t i = 0; i < p->groups_per_token; i++) {
    int64_t g = take_largest(groups, group_taken, p->groups);
    memset(taken + g * size, 0, (size_t)size);
  }
}
#endif

// scratch: experts scores, experts choice scores, groups scores (floats), then the taken flags.
static void choose(const params_t *p, int64_t t, float *scores) {
  int64_t n = p->experts, k = p->top_k;
  float *choice = scores + n;
  uint8_t *taken = (uint8_t *)(choice + n + p->groups);
  int32_t *ids = (int32_t *)p->ids + t * k;
  float *weights = (float *)p->weights + t * k;
  score(scores, (const float *)p->logits + t * n, n);
  const float *bias = p->bias;
  for (int64_t e = 0; e < n; e++) choice[e] = bias ? scores[e] + bias[e] : scores[e];
#if METHOD == GREEDY
  memset(taken, 0, (size_t)n);
#else
  limit_groups(p, choice, taken, choice + n);
#endif
  float sum = 0;
  for (int64_t j = 0; j < k; j++) {
    ids[j] = (int32_t)take_largest(choice, taken, n);
    sum += weights[j] = scores[ids[j]];
  }
  float scale = (float)p->scale;
  for (int64_t j = 0; j < k; j++) {
    if (p->normalise) weights[j] /= sum + 1e-20f;
    weights[j] *= scale;
  }
}

static void sort_by_expert(const params_t *p) {
  const int32_t *ids = p->ids;
  int32_t *offsets = p->offsets, *positions = p->positions, *sources = p->sources;
  int64_t n = p->experts, pairs = p->tokens * p->top_k;
  memset(offsets, 0, (size_t)(n + 1) * sizeof(int32_t));
  for (int64_t i = 0; i < pairs; i++) offsets[ids[i] + 1]++;
  for (int64_t e = 0; e < n; e++) offsets[e + 1] += offsets[e];
  // offsets[e] now counts up through expert e's rows; afterwards it is shifted back by one expert.
  for (int64_t i = 0; i < pairs; i++) {
    int32_t row = offsets[ids[i]]++;
    positions[i] = row;
    sources[row] = (int32_t)(i / p->top_k);
  }
  for (int64_t e = n; e > 0; e--) offsets[e] = offsets[e - 1];
  offsets[0] = 0;
}

void route(const params_t *p, oi_ctx *ctx) {
  for (int64_t t; (t = oi_take(ctx, 1)) < p->tokens;) choose(p, t, ctx->scratch);
  oi_barrier(ctx);
  if (ctx->tid == 0) sort_by_expert(p);
}
