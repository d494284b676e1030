// What sampling means, written as plainly as can be: every token, float64, a full sort.

export interface OracleFilters {
  readonly temperature: number;
  readonly topK: number;
  readonly topP: number;
  readonly minP: number;
}

/** The probability of every token after temperature, min_p, top_k and top_p, in that order. */
export function oracleDistribution(logits: ArrayLike<number>, s: OracleFilters): Float64Array {
  const scale = Math.fround(1 / s.temperature);
  const order = Array.from({ length: logits.length }, (_, i) => i);
  order.sort((a, b) => (logits[b] as number) - (logits[a] as number) || a - b);
  const best = logits[order[0] as number] as number;
  const weight = (id: number): number => Math.exp(((logits[id] as number) - best) * scale);
  let kept = order.filter((id) => weight(id) >= s.minP);
  if (s.topK > 0) kept = kept.slice(0, s.topK);
  const mass = kept.reduce((sum, id) => sum + weight(id), 0);
  let reached = 0;
  const nucleus: number[] = [];
  for (const id of kept) {
    nucleus.push(id);
    reached += weight(id);
    if (s.topP < 1 && reached >= s.topP * mass) break;
  }
  const total = nucleus.reduce((sum, id) => sum + weight(id), 0);
  const out = new Float64Array(logits.length);
  for (const id of nucleus) out[id] = weight(id) / total;
  return out;
}

/** log softmax in float64. */
export function oracleLogprobs(logits: ArrayLike<number>): Float64Array {
  const x = Float64Array.from(logits);
  const best = x.reduce((a, b) => Math.max(a, b), Number.NEGATIVE_INFINITY);
  const lse = best + Math.log(x.reduce((sum, v) => sum + Math.exp(v - best), 0));
  return x.map((v) => v - lse);
}

/**
 * Pearson's statistic of observed counts against probabilities, classes of fewer than five
 * expected taken together, and the value that chance exceeds about once in ten thousand.
 */
export function chiSquare(counts: ArrayLike<number>, p: Float64Array, draws: number) {
  let statistic = 0;
  let classes = 0;
  let rareExpected = 0;
  let rareSeen = 0;
  for (let i = 0; i < p.length; i++) {
    const expected = (p[i] as number) * draws;
    const seen = counts[i] as number;
    if (expected < 5) {
      rareExpected += expected;
      rareSeen += seen;
    } else {
      statistic += (seen - expected) ** 2 / expected;
      classes++;
    }
  }
  if (rareExpected >= 5) {
    statistic += (rareSeen - rareExpected) ** 2 / rareExpected;
    classes++;
  }
  const dof = Math.max(1, classes - 1);
  // Wilson and Hilferty's approximation of the quantile at z = 3.72.
  const limit = dof * (1 - 2 / (9 * dof) + 3.72 * Math.sqrt(2 / (9 * dof))) ** 3;
  return { statistic, limit, dof };
}
