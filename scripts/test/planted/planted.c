// Kernels that do what none may, to prove that it is found. PLANT says what.
#include "oi_kernel.h"

// p: x [n] f32, y [1] f32, n, big.
void planted(const params_t *p, oi_ctx *ctx) {
  const float *x = p->x;
  float *y = p->y;
  (void)ctx;
#if PLANT == 0
  y[0] = x[p->n - 1];
#elif PLANT == 1
  y[0] = x[p->n];
#elif PLANT == 2
  y[0] = x[-1];
#elif PLANT == 3
  int32_t big = (int32_t)p->big;
  y[0] = (float)(big + big);
#elif PLANT == 4
  ((float *)ctx->scratch)[4] = 1;
  y[0] = x[0];
#else
  // What the compiler does not know, it does not instrument.
  __asm__ volatile("movss (%0), %%xmm0" : : "r"(x + p->n) : "xmm0");
  y[0] = x[0];
#endif
}
