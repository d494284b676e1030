// Sums of bf16 rows in float32, in the order given, rounded once: the arithmetic of combine.
#pragma once
#include "ep_common.h"

enum {
  EP_UNROLL = 4,
  EP_PREFETCH = 512,  // elements ahead: rows are too many for the memory's own guesses
};

// Adds the rows' elements from `c` on, `vectors` of them. What comes first is taken as it is, so
// that a single row keeps its bits, the sign of zero included.
static inline __attribute__((always_inline)) void ep_sum_columns(uint16_t *out,
                                                                 const uint16_t *const *rows,
                                                                 int64_t count, int64_t c,
                                                                 int vectors, int past_caches) {
  vf sum[EP_UNROLL];
  for (int v = 0; v < vectors; v++)
    sum[v] = count == 0 ? vf_zero() : vf_load_bf16(rows[0] + c + v * OI_VF);
  for (int64_t i = 1; i < count; i++) {
    if (vectors == EP_UNROLL)
      for (int at = 0; at < vectors * OI_VF; at += 32)
        __builtin_prefetch(rows[i] + c + EP_PREFETCH + at);
    for (int v = 0; v < vectors; v++) sum[v] += vf_load_bf16(rows[i] + c + v * OI_VF);
  }
  vu16 part[EP_UNROLL];
  for (int v = 0; v < vectors; v++) part[v] = vf_to_bf16_bits(sum[v]);
#if defined(__AVX512F__)
  if (past_caches && vectors == EP_UNROLL) {
    _mm512_stream_si512((__m512i *)(out + c), _mm512_loadu_si512(part));
    _mm512_stream_si512((__m512i *)(out + c + 2 * OI_VF), _mm512_loadu_si512(part + 2));
    return;
  }
#endif
  (void)past_caches;
  memcpy(out + c, part, (size_t)vectors * sizeof part[0]);
}

static inline void ep_sum_rows(uint16_t *out, const uint16_t *const *rows, int64_t count,
                               int64_t hidden, int past_caches) {
  if (((intptr_t)out & 63) != 0) past_caches = 0;
  int64_t c = 0;
  for (; c + EP_UNROLL * OI_VF <= hidden; c += EP_UNROLL * OI_VF)
    ep_sum_columns(out, rows, count, c, EP_UNROLL, past_caches);
  for (; c + OI_VF <= hidden; c += OI_VF) ep_sum_columns(out, rows, count, c, 1, 0);
  for (; c < hidden; c++) {
    float sum = count == 0 ? 0 : bf16_to_f32(rows[0][c]);
    for (int64_t i = 1; i < count; i++) sum += bf16_to_f32(rows[i][c]);
    out[c] = f32_to_bf16(sum);
  }
}

static inline void ep_sum_floats(float *out, const float *const *rows, int64_t count,
                                 int64_t length) {
  for (int64_t k = 0; k < length; k++) {
    float sum = count == 0 ? 0 : rows[0][k];
    for (int64_t i = 1; i < count; i++) sum += rows[i][k];
    out[k] = sum;
  }
}
