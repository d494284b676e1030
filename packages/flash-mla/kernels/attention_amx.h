// A split by matrix tiles: scores of all its keys, one softmax, values. Rows are taken 16 at a
// time, a group; tiles multiply two groups at once, so that what is loaded is used twice.
//
// Scores: keys are the left operand, as they lie in the cache where 16 of them are evenly spaced;
// queries, packed once an item, the right one. So rows lie in the lanes and the softmax needs no
// sums across lanes. Values: probabilities, turned around while they become bf16, are the left
// operand, pairs of keys the right one, interleaved a strip of channels at a time.
//
// What a tile does to one row does not depend on the other rows in it. Keys that a row does not see
// have probability 0 and values that are finite, so they add nothing; where a value is not finite,
// rows that do not see it are computed apart.
#pragma once
#include "amx_steps.h"
#include "attention_join.h"

enum {
  KEY_TILES = SPLIT_KEYS / ROWS,
  KEY_STEPS = SPLIT_KEYS / DEPTH,
  CHANNEL_STEPS = D / DEPTH,
  CHANNEL_PART = Q_PARTS == 1 ? 9 : 3,  // steps whose queries, of two groups, stay in L1
  FEW_GROUPS = 2,              // groups whose products follow the interleaving of values at once
  MAX_ROWS = 128
};

// 16 keys: where they begin, and the bytes from one to the next and from 32 channels to the next.
typedef struct {
  const char *at;
  int32_t key, channels;
} key_tile_t;

// This thread's scratch.
typedef struct {
  uint16_t *queries;   // [ROWS][Q_PARTS][D], on the way in
  uint16_t *q;         // [groups][CHANNEL_STEPS][Q_PARTS] tiles
  float *s;            // [2][SPLIT_KEYS][ROWS]
  uint16_t *p;         // [groups][KEY_STEPS][P_PARTS] tiles
  uint16_t *v;         // [KEY_STEPS][2] tiles of values, or a few
  float *tile;         // 4 tiles of sums
  float *acc, *o;      // [rows][O_LD] all splits' sums so far; a row
  uint16_t *stage;     // keys that are not read as they lie [KEY_TILES][CHANNEL_STEPS] tiles
  key_tile_t keys[KEY_TILES + 3];
  float max[MAX_ROWS], sum[MAX_ROWS], acc_max[MAX_ROWS], acc_sum[MAX_ROWS];
  float acc_factor[MAX_ROWS], factor[MAX_ROWS];
  int32_t visible[MAX_ROWS], seen[MAX_ROWS];
  const void *const *next, *const *next_end;  // keys of the next split that are yet to be fetched
  int next_offset, fetch_rate, fetch_due;     // bytes of a key; 256ths of a third of a key
} work_t;

static void carve_scratch(const params_t *p, work_t *w, char *at) {
  const size_t rows = (size_t)p->row_tile, groups = (rows + ROWS - 1) / ROWS;
  w->queries = (uint16_t *)carve(&at, 2 * ROWS * Q_PARTS * D);
  w->q = (uint16_t *)carve(&at, 2 * groups * CHANNEL_STEPS * Q_PARTS * TILE);
  w->s = carve(&at, 4 * 2 * SPLIT_KEYS * ROWS);
  w->p = (uint16_t *)carve(&at, 2 * groups * KEY_STEPS * P_PARTS * TILE);
  w->v = (uint16_t *)carve(&at, 2 * KEY_STEPS * 2 * TILE);
  w->tile = carve(&at, 2 * 4 * TILE);
  w->acc = carve(&at, 4 * rows * O_LD);
  w->o = carve(&at, 4 * O_LD);
  w->stage = (uint16_t *)carve(&at, 2 * KEY_TILES * CHANNEL_STEPS * TILE);
}

// The parts of floats that add up to them: each takes the upper half of what is left. An infinity
// has no rest.
static void split_query(uint16_t *to, const void *src, int type) {
  for (int i = 0; i < D; i++) {
    float x = scalar_of(src, type, i);
    for (int part = 0; part < Q_PARTS; part++) {
      uint32_t bits;
      memcpy(&bits, &x, 4);
      bits &= 0xffff0000;
      to[part * D + i] = (uint16_t)(bits >> 16);
      float taken;
      memcpy(&taken, &bits, 4);
      x = (bits & 0x7f800000) == 0x7f800000 ? 0 : x - taken;
    }
  }
}

// Turns the group's rows around: pairs of channels as rows, queries as columns.
static void pack_group(work_t *w, int group) {
  for (int step = 0; step < CHANNEL_STEPS; step++)
    for (int part = 0; part < Q_PARTS; part++)
      turn_rows(w->q + ((group * CHANNEL_STEPS + step) * Q_PARTS + part) * TILE,
                w->queries + part * D + step * DEPTH, Q_PARTS * D);
}

// Query `row` of an item of `rows`.
static void load_query(work_t *w, int row, int rows, const void *src, int type) {
  uint16_t *to = w->queries + row % ROWS * Q_PARTS * D;
  if (Q_PARTS == 1) memcpy(to, src, D * 2);
  else split_query(to, src, type);
  const size_t row_bytes = Q_PARTS * D * 2;
  if (row == rows - 1) memset(to + Q_PARTS * D, 0, (ROWS - 1 - row % ROWS) * row_bytes);
  if (row == rows - 1 || row % ROWS == ROWS - 1) pack_group(w, row / ROWS);
}

// The keys of the next split are asked for a third of a key at a time, evenly over the steps of
// this one, so that memory and arithmetic overlap: in the order of their addresses, which is what
// the processor's own fetching follows.
enum { KEY_LINES = (KEY_BYTES + 63) / 64, THIRD = (KEY_LINES + 2) / 3 };
static void plan_fetch(work_t *w, const keys_t *then, int steps) {
  w->next = then->row;
  w->next_end = then->row + then->count;
  w->next_offset = 0;
  w->fetch_due = 0;
  w->fetch_rate = steps > 0 ? (then->count * 3 * 256 + steps - 1) / steps : 0;
}
INLINE void fetch_some(work_t *w) {
  w->fetch_due += w->fetch_rate;
  for (; w->fetch_due >= 256; w->fetch_due -= 256) {
    if (w->next == w->next_end) return;
    const char *at = (const char *)*w->next + w->next_offset;
    UNROLL(8) for (int i = 0; i < THIRD - 1; i++) __builtin_prefetch(at + i * 64, 0, 2);
    // Thirds overlap rather than reach behind a key.
    const int last = KEY_LINES * 64 - 64 - w->next_offset;
    __builtin_prefetch(at + (last < (THIRD - 1) * 64 ? last : (THIRD - 1) * 64), 0, 2);
    w->next_offset += THIRD * 64;
    if (w->next_offset >= KEY_LINES * 64) w->next_offset = 0, w->next++;
  }
}

// Finds the 16 keys from j on. They are copied, or decoded, unless they may be read as they lie and
// are evenly spaced bf16. Copies of keys behind the last one hold anything; nobody looks at their
// scores.
static void find_keys(work_t *w, const keys_t *keys, int j) {
  const int n = (int)oi_min(ROWS, keys->count - j);
  const int extra = EXTRA_FORMAT >= 0 && keys->extra;
  key_tile_t *tile = &w->keys[j / ROWS];
  if (n == ROWS && (extra ? EXTRA_FORMAT : KV_FORMAT) == KV_TYPE) {
    const char *first = keys->row[j];
    const int64_t step = (const char *)keys->row[j + 1] - first;
    int even = step == (int32_t)step;
    for (int i = 2; i < n; i++) even &= (const char *)keys->row[j + i] == first + i * step;
    if (even) {
      *tile = (key_tile_t){first, (int32_t)step, DEPTH * 2};
      return;
    }
  }
  uint16_t *to = w->stage + j * D;
  *tile = (key_tile_t){(const char *)to, DEPTH * 2, TILE * 2};
  for (int i = 0; i < n; i++) {
    if (extra) stage_split_key(to + i * DEPTH, EXTRA_FORMAT, keys, j + i);
    else stage_split_key(to + i * DEPTH, KV_FORMAT, keys, j + i);
  }
}

// 32 channels of key j from channel `step` × 32 on.
INLINE const uint16_t *key_channels(const work_t *w, int j, int step) {
  const key_tile_t *tile = &w->keys[j / ROWS];
  return (const uint16_t *)(tile->at + j % ROWS * (int64_t)tile->key + step * tile->channels);
}

// Scores of two groups against the first `seen` keys: s[group][key][row].
static void scores_2(work_t *w, const uint16_t *q, int seen) {
  const uint16_t *other = q + CHANNEL_STEPS * Q_PARTS * TILE;
  for (int part = 0; part < CHANNEL_STEPS; part += CHANNEL_PART) {
    const int end = part + CHANNEL_PART < CHANNEL_STEPS ? part + CHANNEL_PART : CHANNEL_STEPS;
    for (int j = 0; j < seen; j += 2 * ROWS) {
      const key_tile_t a = w->keys[j / ROWS], b = w->keys[j / ROWS + 1];
      const char *left = a.at + part * a.channels, *right = b.at + part * b.channels;
      float *s = w->s + j * ROWS;
      if (part == 0) zero_sums();
      else load_sums(s, s + SPLIT_KEYS * ROWS);
      for (int i = part; i < end; i++, left += a.channels, right += b.channels) {
        oi_tile_load(6, left, a.key);
        oi_tile_load(7, right, b.key);
        UNROLL(3) for (int x = i * Q_PARTS; x < (i + 1) * Q_PARTS; x++) {
          oi_tile_load(4, q + x * TILE, 64);
          oi_tile_load(5, other + x * TILE, 64);
          oi_tile_dot_bf16(0, 6, 4);
          oi_tile_dot_bf16(1, 7, 4);
          oi_tile_dot_bf16(2, 6, 5);
          oi_tile_dot_bf16(3, 7, 5);
        }
        fetch_some(w);
      }
      store_sums(s, s + SPLIT_KEYS * ROWS);
    }
  }
}

// Scores of one group.
static void scores_1(work_t *w, const uint16_t *q, int seen) {
  for (int j = 0; j < seen; j += 4 * ROWS) {
    key_tile_t a = w->keys[j / ROWS], b = w->keys[j / ROWS + 1];
    key_tile_t c = w->keys[j / ROWS + 2], d = w->keys[j / ROWS + 3];
    const uint16_t *x = q;
    zero_sums();
    for (int i = 0; i < CHANNEL_STEPS; i++) {
      UNROLL(3) for (int part = 0; part < Q_PARTS; part++, x += TILE) {
        oi_tile_load(4, x, 64);
        oi_tile_load(5, a.at, a.key);
        oi_tile_load(6, b.at, b.key);
        oi_tile_load(7, c.at, c.key);
        oi_tile_dot_bf16(0, 5, 4);
        oi_tile_load(5, d.at, d.key);
        oi_tile_dot_bf16(1, 6, 4);
        oi_tile_dot_bf16(2, 7, 4);
        oi_tile_dot_bf16(3, 5, 4);
      }
      fetch_some(w);
      a.at += a.channels, b.at += b.channels, c.at += c.channels, d.at += d.channels;
    }
    float *s = w->s + j * ROWS;
    store_sums(s, s + 2 * ROWS * ROWS);
  }
}

// What becomes of a split's sums: they are kept, joined to those of the splits before, or left in a
// slot.
typedef struct {
  float *to;        // row 0
  int64_t ld;
  int join;
  int begin, end;   // rows that take part
} sink_t;

// A tile of sums, of rows `row` and on, from channel `column` on.
ONE_COPY void drain(const work_t *w, const sink_t *sink, const float *tile, int row, int column) {
  const int from = (int)oi_max(row, sink->begin), to = (int)oi_min(row + ROWS, sink->end);
  for (int r = from; r < to; r++) {
    vf x = vf_load(tile + (r - row) * ROWS);
    float *at = sink->to + r * sink->ld + column;
    if (sink->join)
      x = merged(vf_load(at), vf_set(w->acc_factor[r]), x, vf_set(w->factor[r]));
    vf_store(at, x);
  }
}

// 32 keys from j on, of which the first n of the split count: channels from `step` × 32 on. Keys
// that do not count are zeros.
static void interleave_values(work_t *w, uint16_t *to, int n, int j, int step, int tiles) {
  for (int half = 0; half < 2; half++, to += TILE / 2) {
    const key_tile_t *keys = &w->keys[j / ROWS + half];
    const char *at = keys->at + step * keys->channels;
    const int left = n - j - half * ROWS;
    if (left >= ROWS) interleave_rows(to, at, keys->key, keys->channels, tiles);
    else interleave_some(to, at, keys->key, keys->channels, left, tiles);
    fetch_some(w);
  }
}

// Sums of one group over four tiles of channels, or of two groups over two: `p` and `other` times
// values that are interleaved a step ahead of their product.
INLINE void values_few(work_t *w, const uint16_t *p, const uint16_t *other, int n, int steps,
                       int step, int tiles) {
  zero_sums();
  if (steps > 0) interleave_values(w, w->v, n, 0, step, tiles);
  for (int i = 0; i < steps; i++) {
    const uint16_t *v = w->v + i % 2 * 4 * TILE;
    if (i + 1 < steps)
      interleave_values(w, w->v + (i + 1) % 2 * 4 * TILE, n, (i + 1) * DEPTH, step, tiles);
    oi_tile_load(6, v, 64);
    oi_tile_load(7, v + TILE, 64);
    UNROLL(3) for (int x = i * P_PARTS; x < (i + 1) * P_PARTS; x++) {
      oi_tile_load(4, p + x * TILE, 64);
      oi_tile_dot_bf16(0, 4, 6);
      oi_tile_dot_bf16(1, 4, 7);
      if (other != NULL) {
        oi_tile_load(5, other + x * TILE, 64);
        oi_tile_dot_bf16(2, 5, 6);
        oi_tile_dot_bf16(3, 5, 7);
      }
    }
    if (other == NULL && tiles == 4) {
      oi_tile_load(6, v + 2 * TILE, 64);
      oi_tile_load(7, v + 3 * TILE, 64);
      UNROLL(3) for (int x = i * P_PARTS; x < (i + 1) * P_PARTS; x++) {
        oi_tile_load(4, p + x * TILE, 64);
        oi_tile_dot_bf16(2, 4, 6);
        oi_tile_dot_bf16(3, 4, 7);
      }
    }
  }
  store_sums(w->tile, w->tile + 2 * ROWS * ROWS);
}

// Sums of two groups over two tiles of channels, interleaved before.
static void values_2(work_t *w, const uint16_t *p, const uint16_t *other, int steps) {
  const uint16_t *v = w->v;
  zero_sums();
  for (int i = 0; i < steps; i++, v += 2 * TILE) {
    oi_tile_load(6, v, 64);
    oi_tile_load(7, v + TILE, 64);
    UNROLL(3) for (int x = i * P_PARTS; x < (i + 1) * P_PARTS; x++) {
      oi_tile_load(4, p + x * TILE, 64);
      oi_tile_load(5, other + x * TILE, 64);
      oi_tile_dot_bf16(0, 4, 6);
      oi_tile_dot_bf16(1, 4, 7);
      oi_tile_dot_bf16(2, 5, 6);
      oi_tile_dot_bf16(3, 5, 7);
    }
    fetch_some(w);
  }
  store_sums(w->tile, w->tile + 2 * ROWS * ROWS);
}

// Values of the first n keys, for the rows of the sink.
static void values(work_t *w, const sink_t *sink, int n) {
  const int begin = sink->begin / ROWS, end = (sink->end + ROWS - 1) / ROWS, groups = end - begin;
  const int wide = groups == 1 ? 4 : 2;
  for (int column = 0; column < DV; column += wide * ROWS) {
    const int step = column / DEPTH, tiles = DV - column < wide * ROWS ? 2 : wide;
    if (groups > FEW_GROUPS)
      for (int j = 0; j < n; j += DEPTH)
        interleave_values(w, w->v + j * 2 * ROWS, n, j, step, 2);
    for (int g = begin; g < end; g += 2) {
      const int both = g + 1 < end;
      const uint16_t *p = w->p + g * KEY_STEPS * P_PARTS * TILE;
      const uint16_t *other = both ? p + KEY_STEPS * P_PARTS * TILE : NULL;
      const int seen = w->seen[oi_min((g + 1 + both) * ROWS, sink->end) - 1];
      const int steps = (int)(oi_min(n, seen) + DEPTH - 1) / DEPTH;
      if (groups == 1 && tiles == 4) values_few(w, p, NULL, n, steps, step, 4);
      else if (groups == 1) values_few(w, p, NULL, n, steps, step, 2);
      else if (groups == 2) values_few(w, p, both ? other : p, n, steps, step, 2);
      else values_2(w, p, both ? other : p, steps);
      for (int t = 0; t < 4; t++) {
        const int second = t / 2 && groups > 1, c = second || groups > 1 ? t % 2 : t;
        if (second && !both) break;
        if (c < tiles)
          drain(w, sink, w->tile + t * ROWS * ROWS, (g + second) * ROWS, column + c * ROWS);
      }
    }
  }
}

// Whether some value of keys `from` to `to` is not finite.
static int values_bad(const work_t *w, int from, int to) {
  const __m512i mask = _mm512_set1_epi16(0x7f80);
  uint32_t bad = 0;
  for (int j = from; j < to; j++)
    for (int step = 0; step < DV / DEPTH; step++) {
      const __m512i x = _mm512_loadu_si512(key_channels(w, j, step));
      bad |= _mm512_cmpeq_epi16_mask(_mm512_and_si512(x, mask), mask);
    }
  return bad != 0;
}

// Says where the sums of a split go: into its slot, or to the splits before it. A row without a key
// in the split has sum 0 and keeps what it had.
static sink_t split_sink(const params_t *p, const item_t *item, work_t *w, int split) {
  const int rows = item->row_end - item->row_begin;
  if (item->slot >= 0) {
    const int64_t slot = item->slot + (int64_t)(split - item->split_begin) * rows;
    for (int r = 0; r < rows; r++) {
      partial_stats(p, slot + r)[0] = w->max[r];
      partial_stats(p, slot + r)[1] = w->sum[r];
    }
    return (sink_t){partial_out(p, slot), DV, 0, 0, rows};
  }
  if (split == 0) {
    memcpy(w->acc_max, w->max, sizeof w->max);
    memcpy(w->acc_sum, w->sum, sizeof w->sum);
    return (sink_t){w->acc, O_LD, 0, 0, rows};
  }
  for (int r = 0; r < rows; r++) {
    w->acc_factor[r] = 1, w->factor[r] = 0;
    if (w->sum[r] != 0)
      merge_stats(&w->acc_max[r], &w->acc_sum[r], w->max[r], w->sum[r], &w->acc_factor[r],
                  &w->factor[r]);
  }
  return (sink_t){w->acc, O_LD, 1, 0, rows};
}

// How often the steps of a split ask for keys of the next one.
static int fetching_steps(int n, int groups) {
  const int pairs = (groups + 1) / 2, key_steps = (n + DEPTH - 1) / DEPTH, strips = DV / DEPTH;
  if (groups == 1) return CHANNEL_STEPS * ((n + 63) / 64) + key_steps * strips;
  const int scores = CHANNEL_STEPS * key_steps * pairs;
  return scores + key_steps * strips * (groups == 2 ? 2 : 2 + pairs);
}

static void attend_split(const params_t *p, const item_t *item, work_t *w, int split,
                         const keys_t *keys, const keys_t *then) {
  const int rows = item->row_end - item->row_begin, groups = (rows + ROWS - 1) / ROWS;
  const int n = keys->count;
  for (int r = 0; r < groups * ROWS; r++) {
    const int64_t seen = w->visible[oi_min(r, rows - 1)] - (int64_t)split * SPLIT_KEYS;
    w->seen[r] = (int32_t)oi_max(0, oi_min(n, seen));
  }
  plan_fetch(w, then, fetching_steps(n, groups));
  for (int j = 0; j < n; j += ROWS) find_keys(w, keys, j);
  for (int t = (n + ROWS - 1) / ROWS; t % 4; t++) w->keys[t] = w->keys[0];
  const float scale = (float)(p->scale * 1.44269504088896341);
  no_scores(w->max, w->sum, groups * ROWS);
  for (int g = 0; g < groups; g++) {
    const int seen = w->seen[(oi_min(g | 1, groups - 1) + 1) * ROWS - 1];
    const uint16_t *q = w->q + g * CHANNEL_STEPS * Q_PARTS * TILE;
    if (g % 2 == 0 && g + 1 < groups) scores_2(w, q, seen);
    else if (g % 2 == 0) scores_1(w, q, seen);
    softmax_group(w->s + g % 2 * SPLIT_KEYS * ROWS, w->p + g * KEY_STEPS * P_PARTS * TILE, seen,
                  w->seen + g * ROWS, scale, w->max + g * ROWS, w->sum + g * ROWS,
                  w->factor + g * ROWS);
  }
  sink_t sink = split_sink(p, item, w, split);
  if (w->seen[0] == w->seen[rows - 1] || !values_bad(w, w->seen[0], w->seen[rows - 1])) {
    values(w, &sink, n);
    return;
  }
  for (int r = 0; r < rows; r = sink.end) {
    sink.begin = r, sink.end = r + 1;
    while (sink.end < rows && w->seen[sink.end] == w->seen[r]) sink.end++;
    values(w, &sink, w->seen[r]);
  }
}
