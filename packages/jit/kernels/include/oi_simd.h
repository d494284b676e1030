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
static inline vf vf_set(float x) { return x - (vf){0}; }  // x + 0 would turn -0 into +0
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
#if defined(__AVX512F__)  // written out, because gcc 12 widens in two halves
  __m256i x; memcpy(&x, &h, sizeof x);
  return (vf)_mm512_slli_epi32(_mm512_cvtepu16_epi32(x), 16);
#else
  vu w = __builtin_convertvector(h, vu) << 16;
  vf v; memcpy(&v, &w, sizeof v); return v;
#endif
}
static inline vf vf_load_bf16(const uint16_t *p) {
  vu16 h;
  memcpy(&h, p, sizeof h);
  return vf_from_bf16_bits(h);
}
static inline vu16 vf_to_bf16_bits(vf v) {
  vu b; memcpy(&b, &v, sizeof b);
  vu rounded = (b + 0x7fff + ((b >> 16) & 1)) >> 16;
  vu quiet = (b >> 16) | 0x40;
  vu nan = (vu)((b & 0x7fffffff) > 0x7f800000);
  return __builtin_convertvector((rounded & ~nan) | (quiet & nan), vu16);
}
static inline void vf_store_bf16(uint16_t *p, vf v) {
  vu16 h = vf_to_bf16_bits(v);
  memcpy(p, &h, sizeof h);
}

static inline float bf16_to_f32(uint16_t h) {
  uint32_t w = (uint32_t)h << 16;
  float f;
  memcpy(&f, &w, 4);
  return f;
}
static inline uint16_t f32_to_bf16(float f) {
  uint32_t b; memcpy(&b, &f, 4);
  if ((b & 0x7fffffff) > 0x7f800000) return (uint16_t)((b >> 16) | 0x40);
  return (uint16_t)((b + 0x7fff + ((b >> 16) & 1)) >> 16);
}

// Fused multiply-add whatever the flags: one rounding.
static inline vf vf_fma_exact(vf a, vf b, vf c) {
#if defined(__AVX512F__)
  return (vf)_mm512_fmadd_ps((__m512)a, (__m512)b, (__m512)c);
#elif defined(__FMA__)
  return (vf)_mm256_fmadd_ps((__m256)a, (__m256)b, (__m256)c);
#elif defined(__aarch64__)
  return (vf)vfmaq_f32((float32x4_t)c, (float32x4_t)a, (float32x4_t)b);
#else
  vf r; for (int i = 0; i < OI_VF; i++) r[i] = __builtin_fmaf(a[i], b[i], c[i]);
  return r;
#endif
}

// Dot product of bf16 pairs: lane i of the result is acc[i] + a[2i+1]·b[2i+1] + a[2i]·b[2i], as the
// instruction VDPBF16PS computes it: the odd product is added first, each step is fused and rounds
// to nearest even, and subnormals count as zero, going in and coming out. There only where the
// instruction is (OI_BF16DOT is 1), or emulated bit for bit when OI_EMULATE_BF16DOT is defined, so
// that code written for it is testable on any machine.
typedef uint16_t vbf __attribute__((vector_size(OI_VF * 4)));  // 2 · OI_VF bf16
static inline vbf vbf_load(const uint16_t *p) { vbf v; memcpy(&v, p, sizeof v); return v; }
// The pair at p in every lane.
static inline vbf vbf_set_pair(const uint16_t *p) {
  uint32_t pair; memcpy(&pair, p, sizeof pair);
  vu w = (vu){0} + pair;
  vbf v; memcpy(&v, &w, sizeof v); return v;
}
#if defined(OI_EMULATE_BF16DOT)
#define OI_BF16DOT 1
static inline vf oi_flush(vf v) {
  vu b; memcpy(&b, &v, sizeof b);
  vu keep = (vu)((b & 0x7f800000) != 0);
  b &= keep | 0x80000000;
  memcpy(&v, &b, sizeof v); return v;
}
static inline vf oi_bf16dot(vf acc, vbf a, vbf b) {
  vu x, y; memcpy(&x, &a, sizeof x); memcpy(&y, &b, sizeof y);
  vu odd_a = x & 0xffff0000, odd_b = y & 0xffff0000, even_a = x << 16, even_b = y << 16;
  vf oa, ob, ea, eb;
  memcpy(&oa, &odd_a, sizeof oa); memcpy(&ob, &odd_b, sizeof ob);
  memcpy(&ea, &even_a, sizeof ea); memcpy(&eb, &even_b, sizeof eb);
  vf t = oi_flush(vf_fma_exact(oi_flush(oa), oi_flush(ob), oi_flush(acc)));
  return oi_flush(vf_fma_exact(oi_flush(ea), oi_flush(eb), t));
}
#elif defined(__AVX512BF16__)
#define OI_BF16DOT 1
static inline vf oi_bf16dot(vf acc, vbf a, vbf b) {
  return (vf)_mm512_dpbf16_ps((__m512)acc, (__m512bh)a, (__m512bh)b);
}
#endif

// f16, IEEE binary16: rounds to nearest even, overflows to infinity, keeps subnormals and NaN.
// Without a conversion instruction the same results come from integer steps; subnormals go through
// an integer conversion, because arithmetic on subnormal floats is slow and may be flushed to zero.
static inline vf vf_bits(vu b) { vf v; memcpy(&v, &b, sizeof v); return v; }
static inline vu vf_to_bits(vf v) { vu b; memcpy(&b, &v, sizeof b); return b; }
static inline vu vu_select(vu mask, vu a, vu b) { return (a & mask) | (b & ~mask); }

static inline vf vf_from_f16_bits(vu16 h) {
#if defined(__AVX512F__)
  __m256i x; memcpy(&x, &h, sizeof x);
  return (vf)_mm512_cvtph_ps(x);
#elif defined(__F16C__)
  __m128i x; memcpy(&x, &h, sizeof x);
  return (vf)_mm256_cvtph_ps(x);
#elif defined(__aarch64__)
  float16x4_t x; memcpy(&x, &h, sizeof x);
  return (vf)vcvt_f32_f16(x);
#else
  vu w = __builtin_convertvector(h, vu);
  vu magnitude = w & 0x7fff;
  vu sub = vf_to_bits(__builtin_convertvector((vi)magnitude, vf) * 0x1p-24f);
  vu wide = (magnitude << 13) + (112u << 23);
  vu special = (magnitude << 13) | 0x7f800000 | ((vu)(magnitude > 0x7c00) & 0x400000);
  vu r =
      vu_select((vu)(magnitude < 0x400), sub, vu_select((vu)(magnitude >= 0x7c00), special, wide));
  return vf_bits(r | ((w & 0x8000) << 16));
#endif
}
static inline vu16 vf_to_f16_bits(vf v) {
#if defined(__AVX512F__)
  __m256i x = _mm512_cvtps_ph((__m512)v, _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC);
  vu16 h; memcpy(&h, &x, sizeof h); return h;
#elif defined(__F16C__)
  __m128i x = _mm256_cvtps_ph((__m256)v, _MM_FROUND_TO_NEAREST_INT);
  vu16 h; memcpy(&h, &x, sizeof h); return h;
#elif defined(__aarch64__)
  float16x4_t x = vcvt_f16_f32((float32x4_t)v);
  vu16 h; memcpy(&h, &x, sizeof h); return h;
#else
  vu b = vf_to_bits(v), m = b & 0x7fffffff;
  vu sub = vf_to_bits(vf_bits(m) + 0.5f) - 0x3f000000;
  vu normal = ((m + 0xfff + ((m >> 13) & 1)) >> 13) - (112u << 10);
  normal = vu_select((vu)(normal > 0x7c00), (vu){0} + 0x7c00, normal);
  vu r = vu_select((vu)(m < 0x38800000), sub, normal);
  r = vu_select((vu)(m > 0x7f800000), ((m >> 13) & 0x3ff) | 0x7e00, r);
  return __builtin_convertvector(r | ((b >> 16) & 0x8000), vu16);
#endif
}
static inline vf vf_load_f16(const uint16_t *p) {
  vu16 h;
  memcpy(&h, p, sizeof h);
  return vf_from_f16_bits(h);
}
static inline void vf_store_f16(uint16_t *p, vf v) {
  vu16 h = vf_to_f16_bits(v);
  memcpy(p, &h, sizeof h);
}

// e4m3fn (1-4-3, bias 7, no infinity, NaN is 0x7f and 0xff). Widening is exact, NaN stays NaN.
// A code shifted into f16's fields is its value times 2^-8.
static inline vf vf_from_e4m3_bits(vu8 c) {
  typedef int16_t vi16 __attribute__((vector_size(OI_VF * 2)));
#if defined(__AVX512F__)  // written out, because gcc 12 widens in two halves
  __m128i x; memcpy(&x, &c, sizeof x);
  vi16 w = (vi16)_mm256_cvtepi8_epi16(x);  // sign in bits 7 to 15
#else
  typedef int8_t vi8 __attribute__((vector_size(OI_VF)));
  vi8 signed_code; memcpy(&signed_code, &c, sizeof c);
  vi16 w = __builtin_convertvector(signed_code, vi16);
#endif
  vi16 h = (w << 7) & (int16_t)0xbf80;
  vi16 nan = (vi16)((w & 0x7f) == 0x7f);
  h |= nan & 0x7c00;
  vu16 bits; memcpy(&bits, &h, sizeof bits);
  return vf_from_f16_bits(bits) * 256.0f;
}
static inline vf vf_load_e4m3(const uint8_t *p) {
  vu8 c;
  memcpy(&c, p, sizeof c);
  return vf_from_e4m3_bits(c);
}

// Float to e4m3fn, to nearest even; what rounds beyond 448 becomes NaN, as in the tensor package.
static inline vu8 vf_to_e4m3_bits(vf v) {
  vu b = vf_to_bits(v), m = b & 0x7fffffff;
  vu sub = vf_to_bits(vf_bits(m) + 0x1p14f) & 0xff;  // a float near 2^14 counts in steps of 2^-9
  vu normal = ((m + 0x7ffff + ((m >> 20) & 1)) >> 20) - (120u << 3);
  normal = vu_select((vu)(normal > 0x7f), (vu){0} + 0x7f, normal);
  vu r = vu_select((vu)(m < 0x3c800000), sub, normal);
  vu sign = vu_select((vu)(m > 0x7f800000), (vu){0}, (b >> 24) & 0x80);
  return __builtin_convertvector(r | sign, vu8);
}
// The same, but ±448 for all that is larger, infinities included; NaN stays NaN.
static inline vu8 vf_to_e4m3_sat_bits(vf v) {
  vf low = vf_select((vi)(v > 448.0f), vf_set(448.0f), v);
  return vf_to_e4m3_bits(vf_select((vi)(low < -448.0f), vf_set(-448.0f), low));
}
static inline void vf_store_e4m3(uint8_t *p, vf v) {
  vu8 c = vf_to_e4m3_bits(v);
  memcpy(p, &c, sizeof c);
}
static inline void vf_store_e4m3_sat(uint8_t *p, vf v) {
  vu8 c = vf_to_e4m3_sat_bits(v);
  memcpy(p, &c, sizeof c);
}

// e5m2 (1-5-2, infinities as IEEE): the upper byte of an f16.
static inline vf vf_from_e5m2_bits(vu8 c) {
  return vf_from_f16_bits(__builtin_convertvector(c, vu16) << 8);
}
static inline vf vf_load_e5m2(const uint8_t *p) {
  vu8 c;
  memcpy(&c, p, sizeof c);
  return vf_from_e5m2_bits(c);
}
// Float to e5m2, to nearest even, overflow to infinity.
static inline vu8 vf_to_e5m2_bits(vf v) {
  vu b = vf_to_bits(v), m = b & 0x7fffffff;
  vu sub = vf_to_bits(vf_bits(m) + 0x1p7f) & 0xff;
  vu normal = ((m + 0xfffff + ((m >> 21) & 1)) >> 21) - (112u << 2);
  normal = vu_select((vu)(normal > 0x7c), (vu){0} + 0x7c, normal);
  vu r = vu_select((vu)(m < 0x38800000), sub, normal);
  vu nan = (vu)(m > 0x7f800000);
  return __builtin_convertvector(vu_select(nan, (vu){0} + 0x7f, r | ((b >> 24) & 0x80)), vu8);
}
static inline void vf_store_e5m2(uint8_t *p, vf v) {
  vu8 c = vf_to_e5m2_bits(v);
  memcpy(p, &c, sizeof c);
}

// One element at a time, for the tails of rows.
static inline float f16_to_f32(uint16_t h) {
  vu16 x = {0}; x[0] = h; return vf_from_f16_bits(x)[0];
}
static inline uint16_t f32_to_f16(float f) { return vf_to_f16_bits(vf_set(f))[0]; }
static inline float e4m3_to_f32(uint8_t c) {
  vu8 x = {0}; x[0] = c; return vf_from_e4m3_bits(x)[0];
}
static inline uint8_t f32_to_e4m3(float f) { return vf_to_e4m3_bits(vf_set(f))[0]; }
static inline float e5m2_to_f32(uint8_t c) { return f16_to_f32((uint16_t)(c << 8)); }
static inline uint8_t f32_to_e5m2(float f) { return vf_to_e5m2_bits(vf_set(f))[0]; }

// Sum and maximum over lanes, always as the same balanced tree: lane i with lane i + half.
typedef float oi_f8 __attribute__((vector_size(32)));
typedef float oi_f4 __attribute__((vector_size(16)));
static inline oi_f4 oi_max4(oi_f4 a, oi_f4 b) {
#if defined(__x86_64__)
  return (oi_f4)_mm_max_ps((__m128)a, (__m128)b);
#else
  oi_f4 r; for (int i = 0; i < 4; i++) r[i] = a[i] > b[i] ? a[i] : b[i];
  return r;
#endif
}
static inline float vf_sum(vf v) {
  oi_f4 part[OI_VF / 4];
#if OI_VF == 16
  oi_f8 half[2]; memcpy(half, &v, sizeof half);
  half[0] += half[1];
  memcpy(part, half, 32);
#else
  memcpy(part, &v, sizeof part);
#endif
#if OI_VF > 4
  part[0] += part[1];
#endif
  oi_f4 x = part[0] + __builtin_shufflevector(part[0], part[0], 2, 3, 0, 1);
  return x[0] + x[1];
}
static inline float vf_hmax(vf v) {
  oi_f4 part[OI_VF / 4];
#if OI_VF == 16
  oi_f8 half[2]; memcpy(half, &v, sizeof half);
  half[0] = (oi_f8)_mm256_max_ps((__m256)half[0], (__m256)half[1]);
  memcpy(part, half, 32);
#else
  memcpy(part, &v, sizeof part);
#endif
#if OI_VF > 4
  part[0] = oi_max4(part[0], part[1]);
#endif
  oi_f4 x = oi_max4(part[0], __builtin_shufflevector(part[0], part[0], 2, 3, 0, 1));
  return x[0] > x[1] ? x[0] : x[1];
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
