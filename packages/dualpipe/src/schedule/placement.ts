// Which rank holds which stage, for every family of schedules. Builders take their `rankOf` from
// here; nothing here knows the order of operations.

/** Stages one after another, one a rank: 1F1B, ZB1P. */
export function linearPlacement(numRanks: number): Int32Array {
  return Int32Array.from({ length: numRanks }, (_, stage) => stage);
}

/** Stage `v·P + r` on rank `r`: Megatron's virtual stages. */
export function loopedPlacement(numRanks: number, chunksPerRank: number): Int32Array {
  return Int32Array.from({ length: numRanks * chunksPerRank }, (_, stage) => stage % numRanks);
}

/** Stages `r` and `2P − 1 − r` on rank `r`: down and up a V. */
export function vPlacement(numRanks: number): Int32Array {
  const numStages = 2 * numRanks;
  return Int32Array.from({ length: numStages }, (_, stage) =>
    Math.min(stage, numStages - 1 - stage),
  );
}

/** Direction 0 runs down the ranks and direction 1 up, each with its own copy of every stage. */
export function bidirectionalPlacement(numRanks: number): Int32Array {
  return Int32Array.from({ length: 2 * numRanks }, (_, i) =>
    i < numRanks ? i : 2 * numRanks - 1 - i,
  );
}
