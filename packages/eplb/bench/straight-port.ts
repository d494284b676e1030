// The peer of the benches: the original algorithm as one would write it down from its description,
// with nested arrays, one allocation a step, and a comparator. It gives the same placements (the
// bench checks that), and is not used outside benches.

import type { EplbShape } from "../src/index.ts";

function balancedPacking(weight: number[][], numPacks: number): [number[][], number[][]] {
  const packIndex: number[][] = [];
  const rankInPack: number[][] = [];
  for (const row of weight) {
    const perPack = row.length / numPacks;
    if (perPack === 1) {
      packIndex.push(row.map((_, i) => i));
      rankInPack.push(row.map(() => 0));
      continue;
    }
    const order = row.map((_, i) => i).sort((a, b) => (row[b] as number) - (row[a] as number));
    const packs = new Array<number>(row.length).fill(-1);
    const ranks = new Array<number>(row.length).fill(-1);
    const loads = new Array<number>(numPacks).fill(0);
    const items = new Array<number>(numPacks).fill(0);
    for (const item of order) {
      const open = loads.map((_, i) => i).filter((i) => (items[i] as number) < perPack);
      let pack = open[0] as number;
      for (const i of open) if ((loads[i] as number) < (loads[pack] as number)) pack = i;
      packs[item] = pack;
      ranks[item] = items[pack] as number;
      loads[pack] = Math.fround((loads[pack] as number) + (row[item] as number));
      items[pack] = (items[pack] as number) + 1;
    }
    packIndex.push(packs);
    rankInPack.push(ranks);
  }
  return [packIndex, rankInPack];
}

function replicateExperts(weight: number[][], slots: number): [number[][], number[][], number[][]] {
  const phy2log: number[][] = [];
  const rank: number[][] = [];
  const logcnt: number[][] = [];
  for (const row of weight) {
    const experts = row.map((_, i) => i);
    const ranks = row.map(() => 0);
    const counts = row.map(() => 1);
    for (let slot = row.length; slot < slots; slot++) {
      const shares = row.map((w, i) => Math.fround(w / (counts[i] as number)));
      let best = 0;
      for (let i = 1; i < row.length; i++) {
        if ((shares[i] as number) > (shares[best] as number)) best = i;
      }
      experts.push(best);
      ranks.push(counts[best] as number);
      counts[best] = (counts[best] as number) + 1;
    }
    phy2log.push(experts);
    rank.push(ranks);
    logcnt.push(counts);
  }
  return [phy2log, rank, logcnt];
}

function gather<T>(table: T[][], index: number[][]): T[][] {
  return index.map((row, i) => row.map((at) => (table[i] as T[])[at] as T));
}

function inverse(permutation: number[][]): number[][] {
  return permutation.map((row) => {
    const out = new Array<number>(row.length);
    for (const [i, at] of row.entries()) out[at] = i;
    return out;
  });
}

function split(rows: number[][], parts: number): number[][] {
  return rows.flatMap((row) => {
    const length = row.length / parts;
    return Array.from({ length: parts }, (_, i) => row.slice(i * length, (i + 1) * length));
  });
}

function join(rows: number[][], parts: number): number[][] {
  const out: number[][] = [];
  for (let i = 0; i < rows.length; i += parts) out.push(rows.slice(i, i + parts).flat());
  return out;
}

/** The three returns of the original: `[phy2log, log2phy, logcnt]`. */
export function rebalanceStraight(
  input: number[][],
  shape: EplbShape,
): [number[][], number[][][], number[][]] {
  const weight = input.map((row) => row.map(Math.fround));
  const whole = shape.numGroups % shape.numNodes === 0;
  const groups = whole ? shape.numGroups : 1;
  const nodes = whole ? shape.numNodes : 1;
  const experts = (weight[0] as number[]).length;
  const groupSize = experts / groups;
  const groupsPerNode = groups / nodes;
  const slots = shape.numReplicas;

  const loads = weight.map((row) =>
    Array.from({ length: groups }, (_, g) =>
      Math.fround(row.slice(g * groupSize, (g + 1) * groupSize).reduce((a, b) => a + b, 0)),
    ),
  );
  const [nodeOf, rankOf] = balancedPacking(loads, nodes);
  const log2mlog = nodeOf.map((row, layer) =>
    row.flatMap((node, g) => {
      const place = node * groupsPerNode + ((rankOf[layer] as number[])[g] as number);
      return Array.from({ length: groupSize }, (_, j) => place * groupSize + j);
    }),
  );
  const mlog2log = inverse(log2mlog);

  const perNode = split(gather(weight, mlog2log), nodes);
  const [phy2mlog, rank, counts] = replicateExperts(perNode, slots / nodes);
  const shares = phy2mlog.map((row, i) =>
    row.map((e) =>
      Math.fround(((perNode[i] as number[])[e] as number) / ((counts[i] as number[])[e] as number)),
    ),
  );
  const perGpu = slots / shape.numGpus;
  const [packOf, placeOf] = balancedPacking(shares, shape.numGpus / nodes);
  const phy2pphy = packOf.map((row, i) =>
    row.map((pack, j) => pack * perGpu + ((placeOf[i] as number[])[j] as number)),
  );
  const pphy2phy = inverse(phy2pphy);
  const pphy2mlog = join(
    gather(phy2mlog, pphy2phy).map((row, i) => row.map((e) => e + ((i % nodes) * experts) / nodes)),
    nodes,
  );
  const phy2log = gather(mlog2log, pphy2mlog);
  const phyrank = join(gather(rank, pphy2phy), nodes);
  const logcnt = gather(join(counts, nodes), log2mlog);

  const most = Math.max(...logcnt.map((row) => Math.max(...row)));
  const log2phy = logcnt.map((row) => row.map(() => new Array<number>(most).fill(-1)));
  for (const [layer, row] of phy2log.entries()) {
    for (const [slot, expert] of row.entries()) {
      const replica = (phyrank[layer] as number[])[slot] as number;
      ((log2phy[layer] as number[][])[expert] as number[])[replica] = slot;
    }
  }
  return [phy2log, log2phy, logcnt];
}
