// LogFMT-10: a row in 10 bits an element where its logarithm is what matters. A block of 128 has
// its largest and smallest magnitude as bf16, then a sign and nine bits each: 0 is zero, 1 … 511
// are equal steps of the logarithm from the smallest (at most 2^32 below the largest) to the
// largest. Used for rows whose every magnitude is below 1; the others travel as bf16.
#pragma once
#include "ep_cast.h"

enum { EP_LOG_CODES = 511, EP_LOG_CLIP = 32, EP_LOG_BLOCK_BYTES = 128 * 10 / 8 };

static inline int64_t ep_log_bytes(int64_t hidden) {
  return ep_scale_count(hidden) * (4 + EP_LOG_BLOCK_BYTES);
}

static inline int ep_log_fits(const uint16_t *x, int64_t hidden) {
  return ep_log_bytes(hidden) < 2 * hidden && ep_largest_bits(x, hidden) < 0x3f800000;
}

// log2 of a positive bf16; `mantissas` has log2(1 + i/128).
static inline float ep_log2(uint16_t bits, const float *mantissas) {
  int exponent = bits >> 7 & 0xff;
  if (exponent == 0) {
    int shift = __builtin_clz(bits & 0x7f) - 24;
    return (float)(-126 - shift) + mantissas[(bits << shift) & 0x7f];
  }
  return (float)(exponent - 127) + mantissas[bits & 0x7f];
}

typedef struct ep_log_range {
  float low, step;
} ep_log_range;
static inline ep_log_range ep_log_range_of(uint16_t largest, uint16_t smallest,
                                           const float *mantissas) {
  if (largest == 0) return (ep_log_range){0, 0};
  float high = ep_log2(largest, mantissas), low = high - EP_LOG_CLIP;
  if (smallest != 0) {
    float l = ep_log2(smallest, mantissas);
    if (l > low) low = l;
  }
  return (ep_log_range){low, (high - low) / (EP_LOG_CODES - 1)};
}

// Rounds to the nearer of two neighbouring values, not of two logarithms: their middle lies
// log2((1 + 2^step) / 2) above the lower one.
static inline void ep_log_encode_block(const uint16_t *x, int64_t count, uint8_t *meta,
                                       uint8_t *codes, const float *mantissas) {
  uint16_t largest = 0, smallest = 0x7fff;
  for (int64_t i = 0; i < count; i++) {
    uint16_t size = x[i] & 0x7fff;
    if (size > largest) largest = size;
    if (size < smallest) smallest = size;
  }
  memcpy(meta, &largest, 2);
  memcpy(meta + 2, &smallest, 2);
  ep_log_range r = ep_log_range_of(largest, smallest, mantissas);
  float inverse = r.step > 0 ? 1.0f / r.step : 0;
  // (1 + 2^step) / 2 for a step of at most 32 / 510, to float's precision.
  float s = r.step * 0.69314718f;
  float middle = 1 + s * (0.5f + s * (0.25f + s * (1.0f / 12 + s * (1.0f / 48))));
  float up = s == 0 ? 0.5f : (middle - 1) * (1 - (middle - 1) * (0.5f - (middle - 1) * (1.0f / 3)));
  float rounding = r.step > 0 ? 2.0f - up * 1.44269504f * inverse : 1.5f;
  uint64_t bits = 0;
  int held = 0;
  for (int64_t i = 0; i < EP_SCALE_BLOCK; i++) {
    uint32_t code = 0;
    uint16_t size = i < count ? x[i] & 0x7fff : 0;
    if (size != 0) {
      float at = (ep_log2(size, mantissas) - r.low) * inverse + rounding;
      code = at < 0 ? 0 : at > EP_LOG_CODES ? EP_LOG_CODES : (uint32_t)at;
      code |= (uint32_t)(x[i] >> 15) << 9;
    }
    bits |= (uint64_t)code << held;
    for (held += 10; held >= 8; held -= 8, bits >>= 8) *codes++ = (uint8_t)bits;
  }
}

static inline void ep_log_encode(const uint16_t *x, int64_t hidden, uint8_t *to,
                                 const float *mantissas) {
  int64_t blocks = ep_scale_count(hidden);
  for (int64_t b = 0; b < blocks; b++)
    ep_log_encode_block(x + b * 128, oi_min(128, hidden - b * 128), to + 4 * b,
                        to + 4 * blocks + b * EP_LOG_BLOCK_BYTES, mantissas);
}

// Back to floats; `out` has room for whole blocks.
static inline void ep_log_decode(const uint8_t *from, int64_t hidden, float *out,
                                 const float *mantissas) {
  int64_t blocks = ep_scale_count(hidden);
  const uint8_t *codes = from + 4 * blocks;
  for (int64_t b = 0; b < blocks; b++, out += 128) {
    uint16_t ends[2];
    memcpy(ends, from + 4 * b, 4);
    ep_log_range r = ep_log_range_of(ends[0], ends[1], mantissas);
    uint64_t bits = 0;
    int held = 0;
    uint32_t signs[128];
    for (int64_t i = 0; i < 128; i++) {
      for (; held < 10; held += 8) bits |= (uint64_t)*codes++ << held;
      uint32_t code = bits & 511;
      signs[i] = (uint32_t)(bits >> 9 & 1) << 31;
      out[i] = code == 0 ? -1000.0f : ((float)(code - 1) * r.step + r.low) * 0.69314718f;
      bits >>= 10;
      held -= 10;
    }
    for (int64_t i = 0; i < 128; i += OI_VF) {
      vu sign;
      memcpy(&sign, signs + i, sizeof sign);
      vf_store(out + i, vf_bits(vf_to_bits(vf_exp(vf_load(out + i))) | sign));
    }
  }
}
