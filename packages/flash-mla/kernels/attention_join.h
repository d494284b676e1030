// How splits are joined, in order, to a row's result: the same arithmetic whether one thread walked
// them or several did. A split's result is its sums of values, and their maximum and sum.
#pragma once
#include "attention_keys.h"

#if AMX  // maxima in units of log 2
#define MAX_UNIT 0.69314718055994531
#define WEIGHT(x) exp2_small(x)
#else
#define MAX_UNIT 1.0
#define WEIGHT(x) exp_nonpositive(x)
#endif

// Joins the maximum and sum of a later split to what was there, and returns what both sides' values
// must be multiplied by.
ONE_COPY void merge_stats(float *acc_max, float *acc_sum, float max, float sum, float *acc_factor,
                          float *factor) {
  const float top = *acc_max > max ? *acc_max : max;
  const float a = WEIGHT(vf_set(*acc_max - top))[0], b = WEIGHT(vf_set(max - top))[0];
  const float scaled = *acc_sum * a;
  *acc_sum = scaled + sum * b;
  *acc_max = top;
  *acc_factor = a, *factor = b;
}

// A vector of sums and one of a later split.
INLINE vf merged(vf acc, vf acc_factor, vf o, vf factor) {
  vf scaled = acc * acc_factor;
  ROUNDED(scaled);
  return vf_fma_exact(o, factor, scaled);
}

// Adds the result of a later split to what was there.
ONE_COPY void merge_row(float *acc, float *acc_max, float *acc_sum, const float *o, float max,
                        float sum) {
  float a, b;
  merge_stats(acc_max, acc_sum, max, sum, &a, &b);
  for (int i = 0; i < DVP; i += OI_VF)
    vf_store(acc + i, merged(vf_load(acc + i), vf_set(a), vf_load(o + i), vf_set(b)));
}

// Partials: first all rows' sums [partial_rows][DV], then all rows' (maximum, sum).
static inline float *partial_out(const params_t *p, int64_t row) {
  return (float *)p->partials + row * DV;
}
static inline float *partial_stats(const params_t *p, int64_t row) {
  return (float *)p->partials + p->partial_rows * DV + row * 2;
}

static float *carve(char **at, size_t bytes) {
  float *here = (float *)*at;
  *at += (bytes + 63) / 64 * 64;
  return here;
}

// Scores that no key takes part in: what a row starts with.
static inline void no_scores(float *max, float *sum, int rows) {
  for (int r = 0; r < rows; r++) max[r] = NO_SCORE, sum[r] = 0;
}
