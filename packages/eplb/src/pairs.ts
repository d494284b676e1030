// Regions with two slots a GPU. Once the replica counts are chosen, the best pairs are known:
// sorted by load, the heaviest with the lightest, the second with the second last, and so on. So
// only the counts are left to choose: all of them are tried in tiny regions (`pairOptimum`), and a
// few at a time in larger ones (optimize/pair-search.ts).

/**
 * Ways to give `spare` slots to experts: (spare + experts − 1) choose spare, or more than `most`.
 */
function countVectors(numExperts: number, spare: number, most: number): number {
  let ways = 1;
  for (let i = 1; i <= spare && ways <= most; i++) ways = (ways * (numExperts - 1 + i)) / i;
  return ways;
}

/** True if `pairOptimum` has at most `most` choices of counts to try. */
export function isTinyPairs(numExperts: number, numSlots: number, most: number): boolean {
  return countVectors(numExperts, numSlots - numExperts, most) <= most;
}

/** The heaviest pair of ascending shares: each with its mirror image. */
export function heaviestPair(shares: Float64Array): number {
  let heaviest = 0;
  for (let i = 0, j = shares.length - 1; i < j; i++, j--) {
    const sum = (shares[i] as number) + (shares[j] as number);
    if (sum > heaviest) heaviest = sum;
  }
  return heaviest;
}

/**
 * The lowest maximum load of any placement of these experts (loads ascending) on numSlots ÷ 2 GPUs
 * of two slots, those with an expert twice on a GPU included. Tries every choice of counts but
 * those that give an expert too few replicas to be below the best found so far. `bestCounts`, if
 * given, gets the replicas of each expert in the best choice.
 */
export function pairOptimum(
  ascending: Float64Array,
  numSlots: number,
  bestCounts?: Int32Array,
): number {
  const n = ascending.length;
  const shares = new Float64Array(numSlots);
  const counts = new Int32Array(n);
  let best = Number.POSITIVE_INFINITY;

  const evaluate = (): void => {
    let slot = 0;
    for (let e = 0; e < n; e++) {
      const share = (ascending[e] as number) / (counts[e] as number);
      for (let r = counts[e] as number; r > 0; r--) shares[slot++] = share;
    }
    const heaviest = heaviestPair(shares.sort());
    if (heaviest >= best) return;
    best = heaviest;
    bestCounts?.set(counts);
  };
  // The heaviest expert first, with many replicas first: that soon gives a low maximum to prune by.
  const choose = (expert: number, spare: number): void => {
    if (expert === 0) {
      counts[0] = spare + 1;
      evaluate();
      return;
    }
    for (let count = spare + 1; count >= 1; count--) {
      if ((ascending[expert] as number) / count >= best) break;
      counts[expert] = count;
      choose(expert - 1, spare + 1 - count);
    }
  };
  choose(n - 1, numSlots - n);
  return best;
}
