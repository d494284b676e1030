// What is reduced and how, as vectors: elements of DTYPE, accumulated in a wider type (f32 for the
// small floats), combined by OP, sent between nodes as the accumulator or, with WIRE 1, as
// elements. DTYPE, OP and WIRE are constants of the driver.
#pragma once
#include "oi_kernel.h"
#include "oi_simd.h"

enum { HF_F32, HF_BF16, HF_F16, HF_E4M3, HF_E5M2, HF_F64, HF_I32, HF_I64, HF_BYTES };
enum { HF_SUM, HF_AVG, HF_MAX, HF_MIN, HF_COPY };

#define HF_VECTOR(T) __attribute__((vector_size(OI_VF * 4))) T
#if DTYPE <= 4
typedef float acc_t;
typedef int32_t mask_t;
enum { AV = OI_VF };
#elif DTYPE == 5
typedef double acc_t;
typedef int64_t mask_t;
enum { AV = OI_VF / 2 };
#elif DTYPE == 6
typedef int32_t acc_t;
typedef int32_t mask_t;
enum { AV = OI_VF };
#elif DTYPE == 7
typedef int64_t acc_t;
typedef int64_t mask_t;
enum { AV = OI_VF / 2 };
#else
typedef uint8_t acc_t;
typedef int8_t mask_t;
enum { AV = OI_VF * 4 };
#endif
typedef acc_t av __attribute__((vector_size(OI_VF * 4)));
typedef mask_t am __attribute__((vector_size(OI_VF * 4)));

static inline av a_load(const acc_t *p) { av v; memcpy(&v, p, sizeof v); return v; }

#if DTYPE == 1
typedef uint16_t elem_t;
typedef vu16 ev;
static inline av e_widen(ev e) { return vf_from_bf16_bits(e); }
static inline ev e_round(av v) { return vf_to_bf16_bits(v); }
#elif DTYPE == 2
typedef uint16_t elem_t;
typedef vu16 ev;
static inline av e_widen(ev e) { return vf_from_f16_bits(e); }
static inline ev e_round(av v) { return vf_to_f16_bits(v); }
#elif DTYPE == 3
typedef uint8_t elem_t;
typedef vu8 ev;
static inline av e_widen(ev e) { return vf_from_e4m3_bits(e); }
static inline ev e_round(av v) { return vf_to_e4m3_bits(v); }
#elif DTYPE == 4
typedef uint8_t elem_t;
typedef vu8 ev;
static inline av e_widen(ev e) { return vf_from_e5m2_bits(e); }
static inline ev e_round(av v) { return vf_to_e5m2_bits(v); }
#else
typedef acc_t elem_t;
typedef av ev;
static inline av e_widen(ev e) { return e; }
static inline ev e_round(av v) { return v; }
#endif
static inline ev e_load(const elem_t *p) { ev v; memcpy(&v, p, sizeof v); return v; }

// What goes between nodes on the way to the root.
#if WIRE == 1
typedef elem_t wire_t;
typedef ev wv;
static inline av w_widen(wv e) { return e_widen(e); }
static inline wv w_round(av v) { return e_round(v); }
#else
typedef acc_t wire_t;
typedef av wv;
static inline av w_widen(wv v) { return v; }
static inline wv w_round(av v) { return v; }
#endif
static inline wv w_load(const wire_t *p) { wv v; memcpy(&v, p, sizeof v); return v; }

static inline av a_select(am mask, av yes, av no) {
  am y, n;
  memcpy(&y, &yes, sizeof y);
  memcpy(&n, &no, sizeof n);
  y = (y & mask) | (n & ~mask);
  av r;
  memcpy(&r, &y, sizeof r);
  return r;
}

// The running value first. A NaN stays, whoever brings it, in maxima and minima too.
static inline av a_combine(av a, av b) {
#if OP == 2
  return a_select((am)(b > a) | (am)(b != b), b, a);
#elif OP == 3
  return a_select((am)(b < a) | (am)(b != b), b, a);
#elif DTYPE == 6
  return (av)((vu)a + (vu)b);
#elif DTYPE == 7
  typedef uint64_t vu64 __attribute__((vector_size(OI_VF * 4)));
  return (av)((vu64)a + (vu64)b);
#else
  return a + b;
#endif
}

// The last step before rounding: the mean divides by the number of buffers.
static inline av a_finish(av v, int64_t participants) {
#if OP == 1
  return v / ((av){0} + (acc_t)participants);
#else
  (void)participants;
  return v;
#endif
}
