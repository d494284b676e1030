// The element types of operands and results: how a row of A becomes float32, how COLS rows of B
// become the vectors of lanes.h. A_TYPE, B_TYPE and D_TYPE are the driver's constants.
#pragma once
#include "lanes.h"

#define TYPE_F32 0
#define TYPE_BF16 1
#define TYPE_F16 2
#define TYPE_E4M3 3
#define TYPE_E2M1 4

// Whether matrix tiles multiply: bf16 as it is, codes as the bf16 of the same value. They cannot
// hold float32 and f16.
#include "oi_tiles.h"
#define IN_BF16(type) ((type) == TYPE_BF16 || (type) == TYPE_E4M3 || (type) == TYPE_E2M1)
#if defined(OI_TILES) && IN_BF16(A_TYPE) && IN_BF16(B_TYPE)
#define TILES 1
#else
#define TILES 0
#endif

// e2m1, two in a byte, is widened to e4m3 codes of the same values before anything else sees it.
#if A_TYPE == TYPE_E2M1
#undef A_TYPE
#define A_TYPE TYPE_E4M3
#define A_NIBBLES 1
#else
#define A_NIBBLES 0
#endif
#if B_TYPE == TYPE_E2M1
#undef B_TYPE
#define B_TYPE TYPE_E4M3
#define B_NIBBLES 1
#else
#define B_NIBBLES 0
#endif

// Where B's scales go. A scale of 128 rows of B is multiplied into A's panel, which then belongs to
// those rows; scales of single rows, or of other blocks, are multiplied into B's tile.
#define SCALES_NONE 0
#define SCALES_FOLDED 1
#define SCALES_ROWS 2

// Whether few rows of A can meet B as it is stored, without a packed tile.
#define DIRECT (B_K_MAJOR && !B_NIBBLES && B_SCALES != SCALES_ROWS)

#if A_TYPE == TYPE_F32
typedef float a_t;
#elif A_TYPE == TYPE_E4M3
typedef uint8_t a_t;
#else
typedef uint16_t a_t;
#endif

#if B_TYPE == TYPE_F32
typedef float b_t;
#elif B_TYPE == TYPE_E4M3
typedef uint8_t b_t;
#else
typedef uint16_t b_t;
#endif

#if D_TYPE == TYPE_F32
typedef float d_t;
#elif D_TYPE == TYPE_E4M3
typedef uint8_t d_t;
#else
typedef uint16_t d_t;
#endif

// What panels hold and one step of the microkernels multiplies: float32, four k at a time; or,
// where the machine multiplies pairs of bf16, bf16 as it is, eight k at a time. Then chain c of
// lanes.h takes the odd product of its pair first, and subnormals count as zero.
#if A_TYPE == TYPE_BF16 && B_TYPE == TYPE_BF16 && defined(OI_BF16DOT) && \
    (DOT_PAYS || defined(OI_EMULATE_BF16DOT))
#define PAIRS 1
typedef uint16_t panel_t;
typedef vbf step_t;
static inline vf step_fma(step_t a, step_t b, vf c) { return oi_bf16dot(c, a, b); }
#else
#define PAIRS 0
typedef float panel_t;
typedef vf step_t;
static inline vf step_fma(step_t a, step_t b, vf c) { return vf_fma(a, b, c); }
#endif

enum {
  STEP_K = 16 / sizeof(panel_t),           // k of a step
  STEP = sizeof(step_t) / sizeof(panel_t),  // elements of its vector
  // k that one load of a row's vectors brings.
  CHUNK = B_TYPE == TYPE_E4M3 ? 4 * OI_VF : 2 * OI_VF,
};

// ---- e4m3 ----------------------------------------------------------------------------------
// Two ways to float32. With byte permutes (VBMI), the two bytes of the bf16 of a magnitude are
// looked up, NaN included. Without, the seven magnitude bits shifted to the top of f16's magnitude
// are the same number times 2^-8, subnormals included; only NaN (all seven set) comes out as 480 ·
// 2^-8.
#if defined(__AVX512VBMI__)
#define E4M3_LOOKUP 1
#define E4M3_B_SCALE 1.0f  // what A's scale must make up for
#define BF16_OF(c)                                                                             \
  ((c) == 127 ? 0x7fc0                                                                         \
   : (c) > 7  ? (((c) >> 3) + 120) << 7 | ((c) & 7) << 4                                       \
   : (c) > 3  ? 0x3c00 | ((c) & 3) << 5                                                        \
   : (c) > 1  ? 0x3b80 | ((c) & 1) << 6                                                        \
              : (c) * 0x3b00)
#define FOUR(f, c) f(c), f((c) + 1), f((c) + 2), f((c) + 3)
#define SIXTEEN(f, c) FOUR(f, c), FOUR(f, (c) + 4), FOUR(f, (c) + 8), FOUR(f, (c) + 12)
#define THIRTY_TWO(f, c) SIXTEEN(f, c), SIXTEEN(f, (c) + 16)
#define SIXTY_FOUR(f, c) THIRTY_TWO(f, c), THIRTY_TWO(f, (c) + 32)
#define UPPER(c) (uint8_t)(BF16_OF(c) >> 8)
#define LOWER(c) (uint8_t)(BF16_OF(c) & 0xff)
static const vb e4m3_upper[2] = {{SIXTY_FOUR(UPPER, 0)}, {SIXTY_FOUR(UPPER, 64)}};
static const vb e4m3_lower[2] = {{SIXTY_FOUR(LOWER, 0)}, {SIXTY_FOUR(LOWER, 64)}};

// Per 128-bit block: the bf16 of codes 0 … 7 and of codes 8 … 15.
static inline __attribute__((always_inline)) void e4m3_to_bf16(vu codes, vu out[2]) {
  __m512i c = (__m512i)codes;
  __m512i lower = _mm512_permutex2var_epi8((__m512i)e4m3_lower[0], c, (__m512i)e4m3_lower[1]);
  __m512i upper = _mm512_permutex2var_epi8((__m512i)e4m3_upper[0], c, (__m512i)e4m3_upper[1]);
  // | (c & 0x80)
  upper = _mm512_ternarylogic_epi32(upper, c, _mm512_set1_epi8((char)0x80), 0xf8);
  out[0] = (vu)_mm512_unpacklo_epi8(lower, upper);
  out[1] = (vu)_mm512_unpackhi_epi8(lower, upper);
}
#else
#define E4M3_LOOKUP 0
#define E4M3_B_SCALE 256.0f
static inline vw e4m3_even_as_f16(vw w) { return (vw)((vsw)(w << 8) >> 1) & 0xbf80; }
static inline vw e4m3_odd_as_f16(vw w) { return (vw)((vsw)w >> 1) & 0xbf80; }
static inline vw f16_with_nan(vw h) { return h | ((vw)((h & 0x3f80) == 0x3f80) & 0x7fff); }
#endif
enum { E4M3_NAN_UNSEEN = B_TYPE == TYPE_E4M3 && !E4M3_LOOKUP };

// `count` e2m1 codes from an even element on, as e4m3 codes of the same values.
static inline void e2m1_to_e4m3(uint8_t *to, const uint8_t *from, int64_t count) {
  static const uint8_t codes[16] = {0x00, 0x30, 0x38, 0x3c, 0x40, 0x44, 0x48, 0x4c,
                                    0x80, 0xb0, 0xb8, 0xbc, 0xc0, 0xc4, 0xc8, 0xcc};
  int64_t i = 0;
#if defined(__AVX__)
  const __m128i table = _mm_loadu_si128((const __m128i *)codes), nibble = _mm_set1_epi8(15);
  for (; i + 32 <= count; i += 32) {
    __m128i x = _mm_loadu_si128((const __m128i *)(from + i / 2));
    __m128i even = _mm_shuffle_epi8(table, _mm_and_si128(x, nibble));
    __m128i odd = _mm_shuffle_epi8(table, _mm_and_si128(_mm_srli_epi16(x, 4), nibble));
    _mm_storeu_si128((__m128i *)(to + i), _mm_unpacklo_epi8(even, odd));
    _mm_storeu_si128((__m128i *)(to + i + 16), _mm_unpackhi_epi8(even, odd));
  }
#endif
  for (; i < count; i++) to[i] = codes[from[i / 2] >> (i % 2 * 4) & 15];
}

// Element `i` of an operand, and a copy of `count` elements from there.
static inline const a_t *a_at(const void *a, int64_t i) {
  return (const a_t *)a + (A_NIBBLES ? i / 2 : i);
}
static inline const b_t *b_at(const void *b, int64_t i) {
  return (const b_t *)b + (B_NIBBLES ? i / 2 : i);
}
static inline void a_copy(a_t *to, const a_t *from, int64_t count) {
#if A_NIBBLES
  e2m1_to_e4m3(to, from, count);
#else
  memcpy(to, from, (size_t)count * sizeof(a_t));
#endif
}
static inline void b_copy(b_t *to, const b_t *from, int64_t count) {
#if B_NIBBLES
  e2m1_to_e4m3(to, from, count);
#else
  memcpy(to, from, (size_t)count * sizeof(b_t));
#endif
}

// ---- A: rows, in natural order -------------------------------------------------------------
static inline __attribute__((always_inline)) vf a_load(const a_t *p) {
#if A_TYPE == TYPE_F32
  return vf_load(p);
#elif A_TYPE == TYPE_BF16
  return vf_bits(vu_load_words(p) << 16);
#elif A_TYPE == TYPE_F16
  return vf_load_f16(p);
#else
  return vf_load_e4m3(p);
#endif
}

static inline __attribute__((always_inline)) vf b_row_load(const b_t *p) {
#if B_TYPE == TYPE_F32
  return vf_load(p);
#elif B_TYPE == TYPE_BF16
  return vf_bits(vu_load_words(p) << 16);
#elif B_TYPE == TYPE_F16
  return vf_load_f16(p);
#else
  return vf_load_e4m3(p);
#endif
}

// ---- B: COLS rows at once ------------------------------------------------------------------
// A chunk of COLS rows, arranged but still in the stored type; convert with b_steps.
typedef struct {
  vu part[B_TYPE == TYPE_F32 ? 2 * COLS : COLS];
} b_chunk;

enum {
  CHUNK_PARTS = COLS,                            // b_steps calls for a chunk
  PART_STEPS = CHUNK / CHUNK_PARTS / STEP_K,  // vectors that each gives
};

// `row_step`: elements from one of the COLS rows to the next.
static inline __attribute__((always_inline)) b_chunk b_load(const b_t *p, int64_t row_step) {
  b_chunk c;
  UNROLL
  for (int n = 0; n < COLS; n++) c.part[n] = vu_load(p + n * row_step);
#if B_TYPE == TYPE_F32
  UNROLL
  for (int n = 0; n < COLS; n++) c.part[COLS + n] = vu_load(p + n * row_step + OI_VF);
  transpose_blocks(c.part);
  transpose_blocks(c.part + COLS);
#elif B_TYPE == TYPE_BF16 || (B_TYPE == TYPE_E4M3 && E4M3_LOOKUP)
  transpose_blocks(c.part);
#else
  transpose_halves(c.part);
#endif
  return c;
}

// The even and the odd of consecutive bf16.
static inline __attribute__((always_inline)) void split_bf16(vu pairs, vf step[2]) {
  step[0] = vf_bits(pairs << 16);
  step[1] = vf_bits(pairs & 0xffff0000u);
}

// Part i of a chunk as vectors in K order: even k, odd k, and for e4m3 the next even and odd.
static inline __attribute__((always_inline)) void b_steps(const b_chunk *c, int i, int nan,
                                                          step_t step[PART_STEPS]) {
#if PAIRS
  step[0] = (vbf)c->part[i];
#elif B_TYPE == TYPE_F32
  vf x, y;
  memcpy(&x, &c->part[2 * i], sizeof x);
  memcpy(&y, &c->part[2 * i + 1], sizeof y);
  split_even_odd(x, y, &step[0], &step[1]);
#elif B_TYPE == TYPE_BF16
  split_bf16(c->part[i], step);
#elif B_TYPE == TYPE_F16
  vw h = (vw)c->part[i];
  split_even_odd(half_to_f32(h, 0), half_to_f32(h, 1), &step[0], &step[1]);
#elif E4M3_LOOKUP
  vu halves[2];
  e4m3_to_bf16(c->part[i], halves);
  split_bf16(halves[0], step);
  split_bf16(halves[1], step + 2);
#else
  vw even = e4m3_even_as_f16((vw)c->part[i]), odd = e4m3_odd_as_f16((vw)c->part[i]);
  if (nan) even = f16_with_nan(even), odd = f16_with_nan(odd);
  step[0] = half_to_f32(even, 0);
  step[1] = half_to_f32(odd, 0);
  step[2] = half_to_f32(even, 1);
  step[3] = half_to_f32(odd, 1);
#endif
  (void)nan;
}

// Largest byte with the sign set, to find NaN codes (0xff) of e4m3 afterwards.
static inline __attribute__((always_inline)) vb e4m3_max(vb seen, vu part) {
  vb b = (vb)part | 0x80;
#if defined(__AVX512BW__)
  return (vb)_mm512_max_epu8((__m512i)seen, (__m512i)b);
#elif defined(__AVX2__)
  return (vb)_mm256_max_epu8((__m256i)seen, (__m256i)b);
#elif defined(__aarch64__)
  return (vb)vmaxq_u8((uint8x16_t)seen, (uint8x16_t)b);
#else
  vb more = (vb)(b > seen);
  return (b & more) | (seen & ~more);
#endif
}

static inline int e4m3_saw_nan(vb seen) {
  uint64_t words[sizeof(vb) / 8], any = 0;
  vb is = (vb)(seen == 0xff);
  memcpy(words, &is, sizeof words);
  for (unsigned i = 0; i < sizeof(vb) / 8; i++) any |= words[i];
  return any != 0;
}
