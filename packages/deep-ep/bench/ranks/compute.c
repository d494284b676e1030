// Something to compute while tokens travel.
#include <stdint.h>
#include "oi_simd.h"

// { iterations } -> something that depends on all of them.
int64_t bench_compute(int64_t *block) {
  vf a[8];
  for (int i = 0; i < 8; i++) a[i] = vf_set((float)i);
  vf m = vf_set(0.999f);
  for (int64_t n = 0; n < block[0]; n++)
    for (int i = 0; i < 8; i++) a[i] = vf_fma(a[i], m, m);
  float sum = 0;
  for (int i = 0; i < 8; i++) sum += vf_sum(a[i]);
  return (int64_t)sum;
}
