// Random layouts of both modes on random numbers of ranks, nodes and transports, every result
// checked to the bit. A failure's message carries the case with its seed.

import { type SoakOptions, seededRandom } from "@open-infra/testing";
import {
  lowLatencyRank,
  normalRank,
  randomCase,
  randomLowLatencyCase,
  runRanks,
  type Transport,
} from "../v1/worlds.ts";

/** Cases of one group of ranks. */
const batch = 40;

/** Runs batches until the time is over. */
export async function soak(options: SoakOptions): Promise<void> {
  const random = seededRandom(options.seed);
  const end = performance.now() + options.minutes * 60_000;
  for (let done = 0, round = 1; ; round++) {
    const size = random.pick([2, 3, 4, 5, 8]);
    const ranksPerNode = random.int(1, size + 1);
    const transport: Transport = random.pick(["threads", "threads", "processes"]);
    const lowLatency = random.next() < 0.3;
    const make = lowLatency ? randomLowLatencyCase : randomCase;
    const cases = Array.from({ length: batch }, () => make(random, size));
    const where = `round ${round}: ${transport}, ${size} ranks, ${ranksPerNode} a node`;
    try {
      await runRanks(transport, {
        size,
        ranksPerNode,
        commThreads: random.pick([1, 1, 2, 3]),
        timeoutMs: 60_000,
        module: lowLatency ? lowLatencyRank : normalRank,
        data: { cases },
      });
    } catch (cause) {
      throw new Error(`seed ${options.seed}, ${where}: ${(cause as Error).message}`, { cause });
    }
    done += batch;
    options.log(`${where}, ${lowLatency ? "low latency" : "normal"}; ${done} cases so far`);
    if (performance.now() >= end) return;
  }
}
