// Which keys a split has, what shares a pass over them, and the keys of the two FP8 byte layouts,
// or of another type than the rest of the call, as kv_t. A decoded channel is bf16(code × scale),
// whatever kv_t is.
//
// Not here: where keys lie (attention.c, sparse.c) and encoding (src/quantize.ts).
#pragma once
#include "attention_types.h"

// Bytes of a key in the cache: nothing behind a key is fetched.
#ifndef KEY_BYTES
#define KEY_BYTES ((int)(D * sizeof(kv_t)))
#endif
// Where channel i of a decoded key lies from its first one: in a row, or where matrix tiles read
// it, 32 channels of a tile's 16 keys after another.
#if AMX
#define CHANNEL(i) ((i) / 32 * 512 + (i) % 32)
#else
#define CHANNEL(i) (i)
#endif
// How the second cache of a sparse call stores its keys; -1 without one.
#ifndef EXTRA_FORMAT
#define EXTRA_FORMAT -1
#endif

#define NO_SCORE (-1e30f)  // where the running maximum starts, so that no inf − inf appears

// Rows of one request and key head, and the splits of their keys to be computed; `slot` is where
// the splits' results go one by one, -1 if they are joined here and written.
typedef struct {
  int32_t request, kv_head, row_begin, row_end, split_begin, split_end, slot, unused;
} item_t;

// The keys of one split, in order.
typedef struct {
  int count, extra;                  // whether they are of the second cache
  const void *row[SPLIT_KEYS];
  const uint8_t *scale[SPLIT_KEYS];  // where a MODEL1 key's exponents lie
} keys_t;

// Where the parts of a key lie: V32 is 512 codes, 4 float scales, 64 bf16. MODEL1 is 448 codes and
// 64 bf16, with 7 exponents elsewhere.
enum { TYPE_V32 = 3, TYPE_MODEL1 = 4 };
enum { V32_CODES = 512, V32_TILE = 128, MODEL1_CODES = 448, MODEL1_TILE = 64, ROPE = 64 };
enum { MODEL1_ROW = MODEL1_CODES + ROPE * 2, MODEL1_SCALES = 8 };

#if defined(__AVX512VBMI__) && KV_TYPE == 1
// The bf16 of an e4m3 magnitude, by its two bytes.
#define BF16_OF(c)                                      \
  ((c) == 127 ? 0x7fc0                                  \
   : (c) > 7  ? (((c) >> 3) + 120) << 7 | ((c) & 7) << 4 \
   : (c) > 3  ? 0x3c00 | ((c) & 3) << 5                 \
   : (c) > 1  ? 0x3b80 | ((c) & 1) << 6                 \
              : (c) * 0x3b00)
#define FOUR(f, c) f(c), f((c) + 1), f((c) + 2), f((c) + 3)
#define SIXTEEN(f, c) FOUR(f, c), FOUR(f, (c) + 4), FOUR(f, (c) + 8), FOUR(f, (c) + 12)
#define SIXTY_FOUR(f, c) \
  SIXTEEN(f, c), SIXTEEN(f, (c) + 16), SIXTEEN(f, (c) + 32), SIXTEEN(f, (c) + 48)
// The same times 2, for odd exponents: then an even exponent e is e / 2 more in the upper byte.
#define TWICE_OF(c) ((c) == 0 || (c) == 127 ? BF16_OF(c) : BF16_OF(c) + 0x80)
#define UPPER(c) (uint8_t)(BF16_OF(c) >> 8)
#define LOWER(c) (uint8_t)(BF16_OF(c) & 0xff)
#define UPPER_2(c) (uint8_t)(TWICE_OF(c) >> 8)
#define LOWER_2(c) (uint8_t)(TWICE_OF(c) & 0xff)
typedef uint8_t bytes64 __attribute__((vector_size(64)));
static const bytes64 e4m3_upper[2][2] = {{{SIXTY_FOUR(UPPER, 0)}, {SIXTY_FOUR(UPPER, 64)}},
                                         {{SIXTY_FOUR(UPPER_2, 0)}, {SIXTY_FOUR(UPPER_2, 64)}}};
static const bytes64 e4m3_lower[2][2] = {{{SIXTY_FOUR(LOWER, 0)}, {SIXTY_FOUR(LOWER, 64)}},
                                         {{SIXTY_FOUR(LOWER_2, 0)}, {SIXTY_FOUR(LOWER_2, 64)}}};

// n codes (a multiple of 64) times 2^exponent, where every result is a normal bf16, zero or NaN:
// looked up in tables that have the exponent added to all but zero and NaN.
INLINE void look_up_codes(uint16_t *dst, const uint8_t *src, int n, int exponent) {
  const int odd = exponent & 1;
  const __m512i sign = _mm512_set1_epi8((char)0x80), step = _mm512_set1_epi8((char)(exponent >> 1));
  const __m512i lower_0 = (__m512i)e4m3_lower[odd][0], lower_1 = (__m512i)e4m3_lower[odd][1];
  const __m512i raw_0 = (__m512i)e4m3_upper[odd][0], raw_1 = (__m512i)e4m3_upper[odd][1];
  const __m512i upper_0 = _mm512_mask_add_epi8(raw_0, ~1ull, raw_0, step);
  const __m512i upper_1 = _mm512_mask_add_epi8(raw_1, ~0ull >> 1, raw_1, step);
  const __m512i order = _mm512_setr_epi64(0, 4, 1, 5, 2, 6, 3, 7);
#pragma GCC unroll 2
  for (int i = 0; i < n; i += 64) {
    const __m512i c = _mm512_permutexvar_epi64(order, _mm512_loadu_si512(src + i));
    const __m512i lower = _mm512_permutex2var_epi8(lower_0, c, lower_1);
    __m512i upper = _mm512_permutex2var_epi8(upper_0, c, upper_1);
    upper = _mm512_ternarylogic_epi32(upper, c, sign, 0xf8);  // | (c & 0x80)
    _mm512_storeu_si512(dst + CHANNEL(i), _mm512_unpacklo_epi8(lower, upper));
    _mm512_storeu_si512(dst + CHANNEL(i + 32), _mm512_unpackhi_epi8(lower, upper));
  }
}
#endif

INLINE void store_kv(kv_t *dst, vu16 bf16) {
#if KV_TYPE == 0
  vf_store(dst, vf_from_bf16_bits(bf16));
#else
  memcpy(dst, &bf16, sizeof bf16);
#endif
}

// n codes (a multiple of 64) that share a scale.
static void decode_tile(kv_t *dst, const uint8_t *src, int n, float scale) {
#if defined(__AVX512VBMI__) && KV_TYPE == 1
  uint32_t bits;
  memcpy(&bits, &scale, 4);
  const int exponent = (int)(bits >> 23) - 127;  // 128 and more for a negative scale
  if ((bits & 0x7fffff) == 0 && exponent >= -116 && exponent <= 116) {
    look_up_codes(dst, src, n, exponent);
    return;
  }
#endif
  for (int i = 0; i < n; i += OI_VF)
    store_kv(dst + CHANNEL(i), vf_to_bf16_bits(vf_load_e4m3(src + i) * scale));
}

static void copy_bf16(kv_t *dst, const uint16_t *src, int n) {
#if AMX
  for (int i = 0; i < n; i += 32)
    _mm512_storeu_si512(dst + CHANNEL(i), _mm512_loadu_si512(src + i));
#else
  for (int i = 0; i < n; i += OI_VF) {
    vu16 x;
    memcpy(&x, src + i, sizeof x);
    store_kv(dst + i, x);
  }
#endif
}

// A power of two from its biased exponent; 255 is NaN.
static inline float power_of_two(uint8_t code) {
  uint32_t bits = code == 0 ? 0x400000 : code == 255 ? 0x7fc00000 : (uint32_t)code << 23;
  float scale;
  memcpy(&scale, &bits, 4);
  return scale;
}

// One key of a compile-time type; `scale` is where a MODEL1 key's exponents lie.
INLINE void stage_key(kv_t *dst, int type, const uint8_t *row, const uint8_t *scale) {
  if (type == TYPE_V32) {
    for (int t = 0; t < V32_CODES / V32_TILE; t++) {
      float factor;
      memcpy(&factor, row + V32_CODES + t * 4, 4);
      decode_tile(dst + CHANNEL(t * V32_TILE), row + t * V32_TILE, V32_TILE, factor);
    }
    copy_bf16(dst + CHANNEL(V32_CODES), (const uint16_t *)(row + V32_CODES + 16), ROPE);
  } else if (type == TYPE_MODEL1) {
    for (int t = 0; t < MODEL1_CODES / MODEL1_TILE; t++)
      decode_tile(dst + CHANNEL(t * MODEL1_TILE), row + t * MODEL1_TILE, MODEL1_TILE,
                  power_of_two(scale[t]));
    copy_bf16(dst + CHANNEL(MODEL1_CODES), (const uint16_t *)(row + MODEL1_CODES), ROPE);
  } else {
#if KV_TYPE == 0
    for (int i = 0; i < D; i++) dst[i] = scalar_of(row, type, i);
#elif AMX
    copy_bf16(dst, (const uint16_t *)row, D);
#endif
  }
}

// Key j of a split, in a cache of a compile-time type.
INLINE void stage_split_key(kv_t *dst, int type, const keys_t *keys, int j) {
  stage_key(dst, type, keys->row[j], type == TYPE_MODEL1 ? keys->scale[j] : NULL);
}

// Whether the keys of a cache are read as they lie.
#define STAGED(format) ((format) >= 0 && (format) != KV_TYPE)
