// Links for a long time: random puts and the contract over TCP and UCX, and ranks killed at random
// moments. links.test.ts and links-contract.test.ts run a slice of the same.

import { hasUcx, RankDeadError, runProcesses, runThreads } from "@open-infra/ranks";
import { type Random, type SoakOptions, seededRandom } from "@open-infra/testing";
import type { PutsWork } from "../links/puts.ts";
import type { ContractData } from "../ranks/contract-rank.ts";

const contractModule = new URL("../ranks/contract-rank.ts", import.meta.url);
const putsModule = new URL("../links/puts.ts", import.meta.url);
const timeoutMs = 60_000;

type Transport = "tcp" | "ucx";

/** Runs until the time is over. @throws at the first violation, with the seed of its round */
export async function soak({ seed, minutes, log }: SoakOptions): Promise<void> {
  const end = performance.now() + minutes * 60_000;
  const transports: readonly Transport[] = hasUcx() ? ["tcp", "ucx"] : ["tcp"];
  for (let round = 0; performance.now() < end; round++) {
    const random = seededRandom(seed + round);
    const transport = random.pick(transports);
    const body = [puts, contract, puts, kill][round % 4] as typeof puts;
    log(`round ${round}: ${await body(random, transport)}`);
  }
}

async function puts(random: Random, transport: Transport): Promise<string> {
  const size = random.int(2, 6);
  const largest = random.pick([5000, 70_000, 1 << 20, (9 << 20) + 3]);
  const rounds = Math.max(2, Math.min(60, Math.floor((24 << 20) / largest / size)));
  const data: PutsWork = { seed: random.seed, rounds, largest };
  const options = { size, transport, data, module: putsModule, timeoutMs };
  const run = random.pick([runThreads<number>, runProcesses<number>]);
  const checked = await run(options);
  const bytes = checked.reduce((sum, one) => sum + one, 0);
  return `${bytes} bytes in ${rounds} rounds of ${size} ranks over ${transport}`;
}

async function contract(random: Random, transport: Transport): Promise<string> {
  const size = random.int(1, 6);
  const ranksPerNode = random.pick([1, 2, size].filter((ranks) => size % ranks === 0));
  const data: ContractData = { seed: random.seed, rounds: random.int(1, 60) };
  const commThreads = random.int(1, 4);
  const options = { size, ranksPerNode, module: contractModule, data, commThreads, timeoutMs };
  const run = random.pick([runThreads<string[]>, runProcesses<string[]>]);
  const problems = (await run({ ...options, transport })).flat();
  const what = `the contract of ${size} ranks over ${transport}`;
  if (problems.length > 0) throw new Error(`${what}: ${problems.join("; ")}; seed ${random.seed}`);
  return what;
}

/** Whenever it comes, from the first moment on: the error names the victim. */
async function kill(random: Random, transport: Transport): Promise<string> {
  const size = random.int(2, 5);
  const victim = random.int(0, size);
  const afterMs = random.int(0, 10_000);
  const data: ContractData = { seed: random.seed, rounds: 100_000 };
  let timer: NodeJS.Timeout | undefined;
  const onStart = (pid: number, ranks: readonly number[]): void => {
    if (ranks.includes(victim)) timer = setTimeout(() => process.kill(pid, "SIGKILL"), afterMs);
  };
  const what = `rank ${victim} of ${size} killed after ${afterMs} ms over ${transport}`;
  const start = performance.now();
  const options = { size, transport, module: contractModule, data, timeoutMs, onStart };
  const error = await runProcesses(options).catch((thrown: unknown) => thrown);
  clearTimeout(timer);
  if (!(error instanceof RankDeadError) || error.peer !== victim) {
    const got = error instanceof Error ? `${error.name}: ${error.message}` : String(error);
    throw new Error(`expected a RankDeadError; ${what}: ${got}; seed ${random.seed}`);
  }
  if (performance.now() - start > timeoutMs / 2) throw new Error(`${what} took too long`);
  return `${what}: ${error.operation || "joining"}`;
}
