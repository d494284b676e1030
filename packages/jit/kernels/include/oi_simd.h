// Vectors for kernels, on GCC's and clang's vector extensions, so that one source gives AVX-512,
// AVX2, NEON and scalar code. OI_VF is the number of float lanes. Multiply-adds contract to FMA
// (the driver passes -ffp-contract=fast), always in the same places.
#pragma once
#include <stdint.h>
#include <string.h>
#if defined(__x86_64__)
#include <immintrin.h>
#elif defined(__aarch64__)
#include <arm_neon.h>
#endif

#if defined(__AVX512F__)
#define OI_VF 16
#elif defined(__AVX__)
#define OI_VF 8
#else
#define OI_VF 4
#endif

typedef float vf __attribute__((vector_size(OI_VF * 4)));
typedef int32_t vi __attribute__((vector_size(OI_VF * 4)));
typedef uint32_t vu __attribute__((vector_size(OI_VF * 4)));
typedef uint16_t vu16 __attribute__((vector_size(OI_VF * 2)));
typedef uint8_t vu8 __attribute__((vector_size(OI_VF)));

static inline vf vf_load(const float *p) { vf v; memcpy(&v, p, sizeof v); return v; }
static inline void vf_store(float *p, vf v) { memcpy(p, &v, sizeof v); }
static inline vf vf_set(float x) { return (vf){0} + x; }
static inline vf vf_zero(void) { return (vf){0}; }
static inline vf vf_fma(vf a, vf b, vf c) { return a * b + c; }
// Lanes of a where the mask (from a comparison) is set, else of b.
static inline vf vf_select(vi mask, vf a, vf b) {
  vi x, y; memcpy(&x, &a, sizeof x); memcpy(&y, &b, sizeof y);
  x = (x & mask) | (y & ~mask);
  vf r; memcpy(&r, &x, sizeof r); return r;
}
#if defined(__AVX512F__)
static inline vf vf_max(vf a, vf b) { return (vf)_mm512_max_ps((__m512)a, (__m512)b); }
static inline vf vf_min(vf a, vf b) { return (vf)_mm512_min_ps((__m512)a, (__m512)b); }
#elif defined(__AVX__)
static inline vf vf_max(vf a, vf b) { return (vf)_mm256_max_ps((__m256)a, (__m256)b); }
static inline vf vf_min(vf a, vf b) { return (vf)_mm256_min_ps((__m256)a, (__m256)b); }
#else
static inline vf vf_max(vf a, vf b) { return vf_select((vi)(a > b), a, b); }
static inline vf vf_min(vf a, vf b) { return vf_select((vi)(a < b), a, b); }
#endif

// bf16: a float32 cut to its upper half; widening is a shift, narrowing rounds to nearest even.
static inline vf vf_from_bf16_bits(vu16 h) {
  vu w = __builtin_convertvector(h, vu) << 16;
  vf v; memcpy(&v, &w, sizeof v); return v;
}
static inline vf vf_load_bf16(const uint16_t *p) { vu16 h; memcpy(&h, p, sizeof h); return vf_from_bf16_bits(h); }
static inline vu16 vf_to_bf16_bits(vf v) {
  vu b; memcpy(&b, &v, sizeof b);
  vu rounded = (b + 0x7fff + ((b >> 16) & 1)) >> 16;
  vu quiet = (b >> 16) | 0x40;
  vu nan = (vu)((b & 0x7fffffff) > 0x7f800000);
  return __builtin_convertvector((rounded & ~nan) | (quiet & nan), vu16);
}
static inline void vf_store_bf16(uint16_t *p, vf v) { vu16 h = vf_to_bf16_bits(v); memcpy(p, &h, sizeof h); }

static inline float bf16_to_f32(uint16_t h) { uint32_t w = (uint32_t)h << 16; float f; memcpy(&f, &w, 4); return f; }
static inline uint16_t f32_to_bf16(float f) {
  uint32_t b; memcpy(&b, &f, 4);
  if ((b & 0x7fffffff) > 0x7f800000) return (uint16_t)((b >> 16) | 0x40);
  return (uint16_t)((b + 0x7fff + ((b >> 16) & 1)) >> 16);
}

// Sum and maximum over lanes, always as the same balanced tree.
static inline float vf_sum(vf v) {
  float x[OI_VF]; memcpy(x, &v, sizeof v);
  for (int n = OI_VF / 2; n > 0; n /= 2) for (int i = 0; i < n; i++) x[i] += x[i + n];
  return x[0];
}
static inline float vf_hmax(vf v) {
  float x[OI_VF]; memcpy(x, &v, sizeof v);
  for (int n = OI_VF / 2; n > 0; n /= 2) for (int i = 0; i < n; i++) x[i] = x[i] > x[i + n] ? x[i] : x[i + n];
  return x[0];
}

// e^x, relative error below 2e-7 where the result is normal; 0 below about -87.3, +inf above 88.7.
static inline vf vf_exp(vf x) {
  const vf log2e = vf_set(1.44269504088896341f);
  vf t = x * log2e;
  t = vf_min(vf_max(t, vf_set(-150.0f)), vf_set(129.0f));
  const vf magic = vf_set(12582912.0f);
  vf n = (t + magic) - magic;
  vf r = x - n * vf_set(0.693359375f);
  r = r - n * vf_set(-2.12194440e-4f);
  vf p = vf_set(1.9875691500e-4f);
  p = p * r + vf_set(1.3981999507e-3f);
  p = p * r + vf_set(8.3334519073e-3f);
  p = p * r + vf_set(4.1665795894e-2f);
  p = p * r + vf_set(1.6666665459e-1f);
  p = p * r + vf_set(5.0000001201e-1f);
  p = p * r * r + r + vf_set(1.0f);
  vi e = __builtin_convertvector(n, vi);
  vi half = e >> 1;
  vi rest = e - half;
  vi b1 = (half + 127) << 23, b2 = (rest + 127) << 23;
  vf s1, s2; memcpy(&s1, &b1, sizeof s1); memcpy(&s2, &b2, sizeof s2);
  vf y = p * s1 * s2;
  y = vf_select((vi)(x > vf_set(88.72283f)), vf_set(__builtin_inff()), y);
  y = vf_select((vi)(x < vf_set(-103.97f)), vf_zero(), y);
  return vf_select((vi)(x == x), y, x);
}
