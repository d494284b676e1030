// Matrix tiles (Intel AMX): eight tiles, 0 … 7, of 16 rows of 64 bytes each, and the product of
// bf16. There where OI_TILES is defined: with the instruction set `amx`, or emulated to the bit (as
// plain C, so that sanitizers see what is read and written) with `amx-emulated` and under
// AddressSanitizer. Tile numbers are literals.
//
//   oi_tiles_begin();                     // once on each thread of each launch
//   oi_tile_zero(0);
//   oi_tile_load(4, a, a_bytes);          // 16 rows of 32 bf16, a_bytes apart
//   oi_tile_load(6, b, 64);               // 16 rows of 16 pairs: row r has k = 2r, 2r + 1
//   oi_tile_dot_bf16(0, 4, 6);            // tile 0 of 16 × 16 float32 += 4 · 6
//   oi_tile_store(0, c, c_bytes);
//   oi_tiles_end();                       // before the kernel returns
//
// What oi_tile_dot_bf16 does to an element, whatever else is in the tiles: the products of even k
// are added in order to one sum from zero, those of odd k to another, each with one rounding; the
// two are added; and that is added to what was there. Subnormals count as zero, going in and coming
// out of every step; rounding is to nearest even whatever the thread has set. Which operand is left
// and which is right does not show.
//
// Between begin and end a thread's tiles belong to the kernel. Tiles left configured would be saved
// at every switch of threads, and another library's kernel may find them in the way: hence the end.
#pragma once
#include "oi_simd.h"

#if defined(__SANITIZE_ADDRESS__)
#define OI_TILES_AS_C 1
#elif defined(__has_feature)
#if __has_feature(address_sanitizer)
#define OI_TILES_AS_C 1
#endif
#endif

#if defined(OI_EMULATE_TILES) || (defined(OI_ISA_AMX) && defined(OI_TILES_AS_C))
#define OI_TILES 1
#elif defined(OI_ISA_AMX)
#define OI_TILES 1
#define OI_TILES_REAL 1
#endif

// 16 rows of 16 words transposed, in registers; of words that are pairs of bf16, rows of 32 k
// become the right operand of a product.
#if defined(__AVX512F__)
static inline __attribute__((always_inline)) void oi_transpose_16x16(__m512i r[16]) {
  __m512i t[16];
#pragma GCC unroll 8
  for (int i = 0; i < 16; i += 2) {
    t[i] = _mm512_unpacklo_epi32(r[i], r[i + 1]);
    t[i + 1] = _mm512_unpackhi_epi32(r[i], r[i + 1]);
  }
#pragma GCC unroll 4
  for (int i = 0; i < 16; i += 4) {
    r[i] = _mm512_unpacklo_epi64(t[i], t[i + 2]);
    r[i + 1] = _mm512_unpackhi_epi64(t[i], t[i + 2]);
    r[i + 2] = _mm512_unpacklo_epi64(t[i + 1], t[i + 3]);
    r[i + 3] = _mm512_unpackhi_epi64(t[i + 1], t[i + 3]);
  }
  // Now block b of r[4g + j] is column 4b + j of rows 4g … 4g + 3.
#pragma GCC unroll 4
  for (int j = 0; j < 4; j++) {
    __m512i even = _mm512_shuffle_i32x4(r[j], r[4 + j], 0x88);
    __m512i odd = _mm512_shuffle_i32x4(r[j], r[4 + j], 0xdd);
    __m512i more_even = _mm512_shuffle_i32x4(r[8 + j], r[12 + j], 0x88);
    __m512i more_odd = _mm512_shuffle_i32x4(r[8 + j], r[12 + j], 0xdd);
    t[j] = _mm512_shuffle_i32x4(even, more_even, 0x88);
    t[8 + j] = _mm512_shuffle_i32x4(even, more_even, 0xdd);
    t[4 + j] = _mm512_shuffle_i32x4(odd, more_odd, 0x88);
    t[12 + j] = _mm512_shuffle_i32x4(odd, more_odd, 0xdd);
  }
#pragma GCC unroll 16
  for (int i = 0; i < 16; i++) r[i] = t[i];
}
#endif

// The same from memory, `bytes` from row to row: the first half of the shuffles are loads.
#if defined(__AVX512F__)
static inline __attribute__((always_inline)) void oi_transpose_rows(const void *rows, int64_t bytes,
                                                                    __m512i out[16]) {
  const char *at = rows;
#pragma GCC unroll 4
  for (int q = 0; q < 4; q++, at += 16) {
    __m512i r[4];
#pragma GCC unroll 4
    for (int i = 0; i < 4; i++) {
      __m512i v = _mm512_castsi128_si512(_mm_loadu_si128((const __m128i *)(at + i * bytes)));
      v = _mm512_inserti32x4(v, _mm_loadu_si128((const __m128i *)(at + (i + 4) * bytes)), 1);
      v = _mm512_inserti32x4(v, _mm_loadu_si128((const __m128i *)(at + (i + 8) * bytes)), 2);
      r[i] = _mm512_inserti32x4(v, _mm_loadu_si128((const __m128i *)(at + (i + 12) * bytes)), 3);
    }
    __m512i ab = _mm512_unpacklo_epi32(r[0], r[1]), cd = _mm512_unpacklo_epi32(r[2], r[3]);
    __m512i ef = _mm512_unpackhi_epi32(r[0], r[1]), gh = _mm512_unpackhi_epi32(r[2], r[3]);
    out[4 * q] = _mm512_unpacklo_epi64(ab, cd);
    out[4 * q + 1] = _mm512_unpackhi_epi64(ab, cd);
    out[4 * q + 2] = _mm512_unpacklo_epi64(ef, gh);
    out[4 * q + 3] = _mm512_unpackhi_epi64(ef, gh);
  }
}
#endif

#if defined(OI_TILES_REAL)

// As `ldtilecfg` reads it.
typedef struct {
  uint8_t palette, start_row, reserved[14];
  uint16_t row_bytes[16];
  uint8_t rows[16];
} oi_tile_config;

static inline void oi_tiles_begin(void) {
  static const oi_tile_config config = {.palette = 1,
                                        .row_bytes = {64, 64, 64, 64, 64, 64, 64, 64},
                                        .rows = {16, 16, 16, 16, 16, 16, 16, 16}};
  __asm__ volatile("ldtilecfg %0" : : "m"(config));
}
static inline void oi_tiles_end(void) { __asm__ volatile("tilerelease" ::); }

// Written out rather than taken from immintrin.h, whose forms do not tell gcc that they touch
// memory.
#define oi_tile_zero(t) __asm__ volatile("tilezero %%tmm" #t ::)
#define oi_tile_load(t, from, bytes)                                                           \
  __asm__ volatile("tileloadd (%0,%1,1), %%tmm" #t : : "r"((const void *)(from)),              \
                   "r"((int64_t)(bytes)) : "memory")
// The same for rows that are read once: they need not stay in the first-level cache.
#define oi_tile_load_once(t, from, bytes)                                                      \
  __asm__ volatile("tileloaddt1 (%0,%1,1), %%tmm" #t : : "r"((const void *)(from)),            \
                   "r"((int64_t)(bytes)) : "memory")
#define oi_tile_store(t, to, bytes)                                                            \
  __asm__ volatile("tilestored %%tmm" #t ", (%0,%1,1)" : : "r"((void *)(to)),                  \
                   "r"((int64_t)(bytes)) : "memory")
#define oi_tile_dot_bf16(sum, left, right) \
  __asm__ volatile("tdpbf16ps %%tmm" #right ", %%tmm" #left ", %%tmm" #sum ::)

#elif defined(OI_TILES)

static _Thread_local uint32_t oi_tile_words[8][16][16];
static _Thread_local int oi_tiles_ready;

// Uninitialised or released tiles are poisoned, and their use without a begin ends the process as
// the processor's fault would.
static inline void oi_tiles_begin(void) {
  oi_tiles_ready = 1;
  memset(oi_tile_words, 0xff, sizeof oi_tile_words);
}
static inline void oi_tiles_end(void) {
  oi_tiles_ready = 0;
  memset(oi_tile_words, 0xff, sizeof oi_tile_words);
}
static inline void oi_tiles_expect(void) {
  if (!oi_tiles_ready) __builtin_trap();
}
static inline void oi_tile_zero(int t) {
  oi_tiles_expect();
  memset(oi_tile_words[t], 0, sizeof oi_tile_words[t]);
}
static inline void oi_tile_load(int t, const void *from, int64_t bytes) {
  oi_tiles_expect();
  for (int row = 0; row < 16; row++) {
    memcpy(oi_tile_words[t][row], (const char *)from + row * bytes, 64);
  }
}
static inline void oi_tile_load_once(int t, const void *from, int64_t bytes) {
  oi_tile_load(t, from, bytes);
}
static inline void oi_tile_store(int t, void *to, int64_t bytes) {
  oi_tiles_expect();
  for (int row = 0; row < 16; row++) {
    memcpy((char *)to + row * bytes, oi_tile_words[t][row], 64);
  }
}

// A float32's subnormals as zero.
static inline vf oi_tile_flush(vf v) {
  vu b; memcpy(&b, &v, sizeof b);
  b &= (vu)((b & 0x7f800000) != 0) | 0x80000000;
  memcpy(&v, &b, sizeof v); return v;
}
static inline vf oi_tile_half(vu words, int odd) {
  vu b = odd ? words & 0xffff0000u : words << 16;
  vf v; memcpy(&v, &b, sizeof v);
  return oi_tile_flush(v);
}
static inline void oi_tile_dot_bf16(int sum, int left, int right) {
  oi_tiles_expect();
  for (int m = 0; m < 16; m++) {
    for (int n = 0; n < 16; n += OI_VF) {
      vf parts[2] = {{0}, {0}};
      for (int k = 0; k < 16; k++) {
        vu a = (vu){0} + oi_tile_words[left][m][k], b;
        memcpy(&b, &oi_tile_words[right][k][n], sizeof b);
        for (int odd = 0; odd < 2; odd++) {
          vf next = vf_fma_exact(oi_tile_half(a, odd), oi_tile_half(b, odd), parts[odd]);
          parts[odd] = oi_tile_flush(next);
        }
      }
      vf before; memcpy(&before, &oi_tile_words[sum][m][n], sizeof before);
      vf after = oi_tile_flush(oi_tile_flush(before) + oi_tile_flush(parts[0] + parts[1]));
      memcpy(&oi_tile_words[sum][m][n], &after, sizeof after);
    }
  }
}

#endif
