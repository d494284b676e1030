// Every helper of oi_simd.h over arrays, for simd.test.ts. n is a multiple of 16; what a case reads
// and writes is said beside it.
#include "oi_kernel.h"
#include "oi_simd.h"

enum { FROM_F16, TO_F16, FROM_BF16, TO_BF16, FROM_E4M3, TO_E4M3, TO_E4M3_SAT, FROM_E5M2, TO_E5M2,
       EXP, SUM, HMAX, MAX, MIN, BF16DOT, FMA, SET };

void simd(const params_t *p, oi_ctx *ctx) {
  (void)ctx;
  const float *f = p->x, *g = p->y;
  const uint8_t *b = p->x;
  const uint16_t *h = p->x;
  float *out = p->out;
  uint8_t *out8 = p->out;
  uint16_t *out16 = p->out;
  for (int64_t i = 0; i < p->n; i += OI_VF) {
    switch (p->op) {
      case FROM_F16: vf_store(out + i, vf_load_f16(h + i)); break;
      case TO_F16: vf_store_f16(out16 + i, vf_load(f + i)); break;
      case FROM_BF16: vf_store(out + i, vf_load_bf16(h + i)); break;
      case TO_BF16: vf_store_bf16(out16 + i, vf_load(f + i)); break;
      case FROM_E4M3: vf_store(out + i, vf_load_e4m3(b + i)); break;
      case TO_E4M3: vf_store_e4m3(out8 + i, vf_load(f + i)); break;
      case TO_E4M3_SAT: vf_store_e4m3_sat(out8 + i, vf_load(f + i)); break;
      case FROM_E5M2: vf_store(out + i, vf_load_e5m2(b + i)); break;
      case TO_E5M2: vf_store_e5m2(out8 + i, vf_load(f + i)); break;
      case EXP: vf_store(out + i, vf_exp(vf_load(f + i))); break;
      case MAX: vf_store(out + i, vf_max(vf_load(f + i), vf_load(g + i))); break;
      case MIN: vf_store(out + i, vf_min(vf_load(f + i), vf_load(g + i))); break;
      case FMA:
        vf_store(out + i, vf_fma_exact(vf_load(f + i), vf_load(g + i), vf_load(out + i)));
        break;
      case SET: vf_store(out + i, vf_set(f[i])); break;
      case SUM: out[i] = vf_sum(vf_load(f + i)); out[i + 1] = OI_VF; break;
      case HMAX: out[i] = vf_hmax(vf_load(f + i)); out[i + 1] = OI_VF; break;
      // x, y: 2n bf16; out: n floats to add to.
      case BF16DOT:
#if defined(OI_BF16DOT)
        vf_store(out + i, oi_bf16dot(vf_load(out + i), vbf_load(h + 2 * i),
                                     vbf_load((const uint16_t *)p->y + 2 * i)));
#endif
        break;
    }
  }
}

// The one-element forms, and which features the kernel was compiled with.
void scalars(const params_t *p, oi_ctx *ctx) {
  (void)ctx;
  const float *f = p->x;
  uint32_t *out = p->out;
  for (int64_t i = 0; i < p->n; i++) {
    uint8_t e4 = f32_to_e4m3(f[i]), e5 = f32_to_e5m2(f[i]);
    uint16_t h = f32_to_f16(f[i]), bf = f32_to_bf16(f[i]);
    float back[4] = {e4m3_to_f32(e4), e5m2_to_f32(e5), f16_to_f32(h), bf16_to_f32(bf)};
    memcpy(out + 4 * i, back, sizeof back);
  }
}
