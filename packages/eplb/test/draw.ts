// Random layers and clusters for property tests.

import type { Random } from "@open-infra/testing";
import type { EplbShape } from "../src/index.ts";

/** Loads of `n` experts with a heavy tail. */
export function lognormal(random: Random, n: number): number[] {
  return Array.from({ length: n }, () => Math.exp(random.normal()) * 1000);
}

/** Rows of one of several kinds: heavy tails, counts, many ties, many zeros. */
export function drawLoads(random: Random, layers: number, numLogical: number): number[][] {
  return Array.from({ length: layers }, () => {
    const kind = random.int(0, 4);
    return Array.from({ length: numLogical }, () => {
      if (kind === 0) return Math.exp(2 * random.normal()) * 100;
      if (kind === 1) return random.int(1, 1000);
      if (kind === 2) return random.int(0, 4);
      return random.next() < 0.5 ? 0 : random.next();
    });
  });
}

/** A small cluster on which the hierarchical policies can run. */
export function drawShape(
  random: Random,
  most = 4,
): { readonly shape: EplbShape; readonly numLogical: number } {
  const numNodes = random.int(1, most);
  const numGroups = numNodes * random.int(1, most);
  const numLogical = numGroups * random.int(1, most + 1);
  const numGpus = numNodes * random.int(1, most + 1);
  const perGpu = Math.ceil(numLogical / numGpus) + random.int(0, 3);
  return { shape: { numReplicas: perGpu * numGpus, numGroups, numNodes, numGpus }, numLogical };
}
