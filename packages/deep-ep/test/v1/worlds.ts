// How the tests of both modes start their ranks: threads or processes, over memory or over links.

import { findCompiler } from "@open-infra/jit";
import { hasUcx, type RunOptions, runProcesses, runThreads } from "@open-infra/ranks";
import { type Random, type Requirement, requirement } from "@open-infra/testing";
import type { LowLatencyCase } from "./low-latency-case.ts";
import type { NormalCase } from "./normal-case.ts";

/** Where ranks live and how bytes travel between them. */
export type Transport =
  | "threads"
  | "processes"
  | "processes of two threads"
  | "threads over tcp"
  | "processes over ucx";

const compiler: Requirement =
  findCompiler() !== undefined || "no C compiler (apt-get install gcc libc6-dev)";
const ucx: Requirement = hasUcx() || "no libucp.so.0 (apt-get install libucx0)";

/** For `describe.skipIf`: says what is missing. */
export function lacks(test: string, transport: Transport = "threads"): boolean {
  const met = compiler === true && transport === "processes over ucx" ? ucx : compiler;
  return requirement(test, met);
}

/** Runs a module on ranks of a transport. */
export function runRanks<T>(transport: Transport, options: RunOptions): Promise<T[]> {
  const limits = { timeoutMs: 20_000, ...options };
  if (transport === "threads") return runThreads<T>(limits);
  if (transport === "processes") return runProcesses<T>(limits);
  if (transport === "processes of two threads") {
    return runProcesses<T>({ ...limits, ranksPerProcess: 2 });
  }
  if (transport === "threads over tcp") return runThreads<T>({ ...limits, transport: "tcp" });
  return runProcesses<T>({ ...limits, transport: "ucx" });
}

export const normalRank: URL = new URL("./normal-rank.ts", import.meta.url);
export const lowLatencyRank: URL = new URL("./low-latency-rank.ts", import.meta.url);

/** A case with everything at random. */
export function randomCase(random: Random, ranks: number): NormalCase {
  const local = random.pick([1, 2, 3, 8]);
  const numExperts = ranks * local;
  const most = random.pick([0, 1, 5, 24]);
  const topk = Math.min(numExperts, random.pick([1, 2, 3, 8, 11]));
  const onlyExpert = random.next() < 0.1 ? random.int(0, numExperts) : undefined;
  return {
    seed: random.int(1, 1 << 20),
    tokens: Array.from({ length: ranks }, () => random.int(0, most + 1)),
    hidden: random.pick([1, 7, 64, 130, 264]),
    topk,
    numExperts,
    kind: random.pick(["bf16", "fp8", "fp8-columns", "fp8-ue8m0", "f32"] as const),
    ...(random.next() < 0.3 && { topkGroups: random.int(1, 4) }),
    maskedRatio: random.pick([0, 0, 0.3, 1]),
    ...(onlyExpert !== undefined && { onlyExpert }),
    withTopk: random.next() < 0.7,
    alignment: random.pick([1, 1, 8, 128]),
    worst: random.next() < 0.2,
    cached: random.next() < 0.4,
    biases: random.int(0, 3),
    previous: random.next() < 0.5,
    async: random.next() < 0.5,
  };
}

/** The same for the low-latency mode. */
export function randomLowLatencyCase(random: Random, ranks: number): LowLatencyCase {
  const numExperts = ranks * random.pick([1, 2, 5]);
  const most = random.pick([1, 3, 9]);
  const [useFp8, roundScale] = [random.next() < 0.6, random.next() < 0.5];
  const hook = random.next() < 0.5;
  const zeroCopy = random.next() < 0.4;
  return {
    seed: random.int(1, 1 << 20),
    tokens: Array.from({ length: ranks }, () => random.int(0, most + 1)),
    most,
    hidden: random.pick([1, 64, 130, 640, 1000]),
    topk: Math.min(numExperts, random.pick([1, 2, 8])),
    numExperts,
    useFp8,
    roundScale,
    useUe8m0: useFp8 && roundScale && random.next() < 0.5,
    hook,
    async: !hook && random.next() < 0.5,
    zeroCopy,
    useLogfmt: !zeroCopy && random.next() < 0.4,
    maskedRatio: random.pick([0, 0.3, 1]),
    ...(random.next() < 0.2 && { onlyExpert: random.int(0, numExperts) }),
  };
}
