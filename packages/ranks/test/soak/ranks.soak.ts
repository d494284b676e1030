// Ranks for a long time: the whole contract with random shapes, and random kills at random moments.
// heap.test.ts, shm.test.ts and faults.test.ts run a slice of the same.

import { readFileSync } from "node:fs";
import { GroupError, RankDeadError, runProcesses, runThreads } from "@open-infra/ranks";
import { type Random, type SoakOptions, seededRandom } from "@open-infra/testing";
import type { ContractData } from "../ranks/contract-rank.ts";

const module = new URL("../ranks/contract-rank.ts", import.meta.url);
const timeoutMs = 60_000;

/** Runs until the time is over. @throws at the first violation, with the seed of its round */
export async function soak({ seed, minutes, log }: SoakOptions): Promise<void> {
  const end = performance.now() + minutes * 60_000;
  for (let round = 0; performance.now() < end; round++) {
    const random = seededRandom(seed + round);
    const what = round % 4 === 3 ? await kill(random) : await contract(random);
    const left = readFileSync("/proc/self/maps", "utf8").includes("open-infra-ranks");
    if (left) throw new Error(`${what}: shared memory was left; seed ${seed + round}`);
    log(`round ${round}: ${what}`);
  }
}

async function contract(random: Random): Promise<string> {
  const size = random.int(1, 9);
  const kind = random.pick(["threads", "processes", "processes of 2 threads"]);
  const ranksPerNode = random.pick([1, 2, size].filter((ranks) => size % ranks === 0));
  const data: ContractData = { seed: random.seed, rounds: random.int(1, 200) };
  const commThreads = random.int(1, 4);
  const options = { size, ranksPerNode, module, data, commThreads, timeoutMs };
  const results =
    kind === "threads"
      ? await runThreads<string[]>(options)
      : await runProcesses<string[]>({ ...options, ranksPerProcess: kind === "processes" ? 1 : 2 });
  const what = `${size} ranks as ${kind}, nodes of ${ranksPerNode}, ${commThreads} threads`;
  const problems = results.flat();
  if (problems.length > 0) throw new Error(`${what}: ${problems.join("; ")}; seed ${random.seed}`);
  return what;
}

/** Whenever it comes, from the first moment on: the error names the victim. */
async function kill(random: Random): Promise<string> {
  const size = random.int(2, 6);
  const victim = random.int(0, size);
  const afterMs = random.int(0, 8000);
  const data: ContractData = { seed: random.seed, rounds: 100_000 };
  let timer: NodeJS.Timeout | undefined;
  const onStart = (pid: number, ranks: readonly number[]): void => {
    if (ranks.includes(victim)) timer = setTimeout(() => process.kill(pid, "SIGKILL"), afterMs);
  };
  const what = `rank ${victim} of ${size} killed after ${afterMs} ms`;
  const start = performance.now();
  const error = await runProcesses({ size, module, data, timeoutMs, onStart }).catch((e) => e);
  clearTimeout(timer);
  const facts = `${what}: ${(error as Error).message}; seed ${random.seed}`;
  if (!(error instanceof RankDeadError) || error.peer !== victim) {
    throw new Error(`expected a RankDeadError for rank ${victim}; ${facts}`, { cause: error });
  }
  if (performance.now() - start > timeoutMs / 2) throw new Error(`it took too long; ${facts}`);
  return `${what}: ${error instanceof GroupError ? error.operation || "joining" : ""}`;
}
