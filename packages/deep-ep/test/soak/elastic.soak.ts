// Random groups, worlds and options without end: every dispatch and combine is compared with the
// reference bit by bit, on threads, processes and TCP.

import { type RunOptions, runProcesses, runThreads } from "@open-infra/ranks";
import { type Random, type SoakOptions, seededRandom } from "@open-infra/testing";
import { someCases } from "../elastic/cases.ts";
import type { GridPart } from "../elastic/grid.ts";
import type { WorldShape } from "../elastic/world.ts";

const partsPerGroup = 12;
const module = new URL("../elastic/grid.ts", import.meta.url);

function randomShape(random: Random, seed: number, size: number): WorldShape {
  const numExperts = size * random.pick([1, 2, 4, 7]);
  const repeats = random.next() < 0.2;
  const numTopk = Math.min(repeats ? 8 : numExperts, random.int(1, 9));
  const numMaxTokensPerRank = random.pick([1, 3, 9, 30, 70]);
  const uneven = Array.from({ length: size }, () => random.int(0, numMaxTokensPerRank + 1));
  return {
    ...{ seed, size, scaleup: size, numExperts, numTopk, numMaxTokensPerRank, repeats },
    hidden: random.pick([1, 8, 31, 64, 128, 200]),
    expertAlignment: 1,
    masked: random.pick([0, 0.1, 0.5, 0.95]),
    ...(random.next() < 0.5 && { tokens: uneven }),
    ...(random.next() < 0.2 && { favourite: random.int(0, numExperts) }),
  };
}

function randomParts(random: Random, size: number): GridPart[] {
  return Array.from({ length: partsPerGroup }, () => {
    const seed = random.int(0, 2 ** 31);
    return {
      shape: randomShape(random, seed, size),
      cases: someCases(seed, random.int(1, 4)),
      allowHybridMode: random.next() < 0.7,
      allowMultipleReduction: random.next() < 0.7,
      directMemory: random.next() < 0.6,
    };
  });
}

/** Runs random groups until the time is over. */
export async function soak({ seed, minutes, log }: SoakOptions): Promise<void> {
  const random = seededRandom(seed);
  const end = performance.now() + minutes * 60_000;
  let checked = 0;
  for (let round = 1; round === 1 || performance.now() < end; round++) {
    const size = random.int(1, 7);
    const transport = random.pick(["threads", "threads", "processes", "tcp"] as const);
    const options: RunOptions = {
      ...{ size, module, timeoutMs: 60_000 },
      data: randomParts(random, size),
      ranksPerNode: random.int(1, size + 1),
      commThreads: random.int(1, 4),
      ...(transport === "tcp" && { transport }),
    };
    const start = transport === "processes" ? runProcesses<number> : runThreads<number>;
    const what = `round ${round}: ${size} ranks, ${options.ranksPerNode} a node, ${transport}`;
    try {
      checked += (await start(options))[0] ?? 0;
    } catch (cause) {
      throw new Error(`seed ${seed}, ${what}: ${(cause as Error).message}`, { cause });
    }
    log(`${what}: held; ${checked} cases so far`);
  }
}
