// One pass over rows of logits: the best token, and how many tokens and how much mass lie in each
// bin below it. A row is handled by one thread in a fixed order, so its result does not depend on
// the other rows.
#include "logit_bins.h"

#define STATUS_OK 0
#define STATUS_NAN 1
#define STATUS_INFINITE 2

// The maximum, its first index, and whether the row can be used at all.
static int32_t row_head(const float *x, int64_t n, float *max_out, int32_t *argmax_out) {
  vf best = vf_set(-__builtin_inff());
  vi nan = {0};
  int64_t i = 0;
  for (; i + OI_VF <= n; i += OI_VF) {
    vf v = vf_load(x + i);
    nan |= (vi)(v != v);
    best = vf_max(v, best);
  }
  int any_nan = 0;
  for (int l = 0; l < OI_VF; l++) any_nan |= nan[l] != 0;
  float max = vf_hmax(best);
  for (; i < n; i++) {
    any_nan |= x[i] != x[i];
    if (x[i] > max) max = x[i];
  }
  *max_out = max;
  *argmax_out = -1;
  if (any_nan) return STATUS_NAN;
  if (max == __builtin_inff() || max == -__builtin_inff()) return STATUS_INFINITE;
  for (i = 0; i < n; i++) {
    if (x[i] == max) {
      *argmax_out = (int32_t)i;
      break;
    }
  }
  return STATUS_OK;
}

static void row_histogram(const float *x, int64_t n, float max, float inverse_temperature,
                          int32_t *counts, float *masses, double *sums) {
  for (int b = 0; b < BINS; b++) {
    counts[b] = 0;
    sums[b] = 0.0;
  }
  const vf top = vf_set(max), scale = vf_set(inverse_temperature);
  for (int64_t i = 0; i < n; i += OI_VF) {
    float logits[OI_VF], mass[OI_VF];
    int32_t bin[OI_VF];
    int64_t lanes = oi_min(OI_VF, n - i);
    const float *from = x + i;
    if (lanes < OI_VF) {
      for (int l = 0; l < OI_VF; l++) logits[l] = l < lanes ? x[i + l] : max;
      from = logits;
    }
    vf d = (top - vf_load(from)) * scale;
    vf_store(mass, vf_exp(-d));
    vi bins = __builtin_convertvector(bin_position(d), vi);
    memcpy(bin, &bins, sizeof bin);
    if (lanes == OI_VF) {
      for (int l = 0; l < OI_VF; l++) {
        counts[bin[l]]++;
        sums[bin[l]] += (double)mass[l];
      }
    } else {
      for (int l = 0; l < lanes; l++) {
        counts[bin[l]]++;
        sums[bin[l]] += (double)mass[l];
      }
    }
  }
  for (int b = 0; b < BINS; b++) masses[b] = (float)sums[b];
}

void scan_logits(const params_t *p, oi_ctx *ctx) {
  const int32_t *rows = p->rows;
  const float *scales = p->scales;
  for (;;) {
    int64_t job = oi_take(ctx, 1);
    if (job >= p->num_jobs) return;
    const float *x = (const float *)p->logits + (int64_t)rows[job] * p->row_stride;
    float max;
    int32_t argmax;
    int32_t status = row_head(x, p->vocab, &max, &argmax);
    ((float *)p->maxima)[job] = max;
    ((int32_t *)p->heads)[2 * job] = argmax;
    ((int32_t *)p->heads)[2 * job + 1] = status;
    if (status != STATUS_OK || scales[job] == 0.0f) continue;
    row_histogram(x, p->vocab, max, scales[job], (int32_t *)p->counts + job * BINS,
                  (float *)p->masses + job * BINS, ctx->scratch);
  }
}
