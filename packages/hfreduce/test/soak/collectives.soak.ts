// Random operations over random groups, nodes, transports and sizes of chunks, each result to the
// bit; `npm run soak -- hfreduce --minutes 5 --seed 1`.

import { runProcesses, runThreads } from "@open-infra/ranks";
import { type Random, type SoakOptions, seededRandom } from "@open-infra/testing";
import { randomCases, type Script } from "../ranks/collectives.ts";

const module = new URL("../ranks/collectives.ts", import.meta.url);

/** Ranks in random sets, each rank in one. */
function randomSets(random: Random, size: number): number[][] {
  const sets: number[][] = [[], [], []];
  for (let rank = 0; rank < size; rank++) (sets[random.int(0, 3)] as number[]).push(rank);
  return sets.filter((set) => set.length > 0);
}

/** One group with several scripts. @throws the first difference, with the seed. */
export async function soakRound(seed: number, operations: number): Promise<string> {
  const random = seededRandom(seed);
  const size = random.int(1, 10);
  const ranksPerNode = random.int(1, size + 1);
  const scripts = Array.from({ length: 3 }, (_, i): Script => {
    const open = {
      chunkBytes: random.int(512, 20_000),
      smallBytes: random.int(0, 2000),
      stageBytes: random.int(512, 40_000),
    };
    const sets = i === 2 ? { sets: randomSets(random, size) } : {};
    return { cases: randomCases(random, operations, size), open, ...sets };
  });
  const ways = ["heap", "shm", "tcp", "processes"] as const;
  const way = ways[random.int(0, ways.length)] as (typeof ways)[number];
  const commThreads = random.int(1, 3);
  const run = { size, ranksPerNode, commThreads, timeoutMs: 60_000, module, data: scripts };
  const what = `${size} ranks, ${ranksPerNode} a node, ${commThreads} threads, ${way}`;
  try {
    if (way === "processes") await runProcesses(run);
    else await runThreads({ ...run, transport: way });
  } catch (error) {
    throw new Error(`seed ${seed}: ${what}: ${(error as Error).message}`, { cause: error });
  }
  return what;
}

/** Rounds until the time is over. */
export async function soak({ seed, minutes, log }: SoakOptions): Promise<void> {
  const end = performance.now() + minutes * 60_000;
  for (let round = 0; round === 0 || performance.now() < end; round++) {
    log(`round ${round}, seed ${seed + round}: ${await soakRound(seed + round, 40)}`);
  }
}
