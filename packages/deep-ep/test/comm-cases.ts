// Small runs that reach every communication kernel of the package, for `npm run sanitize`: ranks
// are threads of the watched process, over memory and over TCP. Each rank checks its own results.

import { runThreads } from "@open-infra/ranks";
import { seededRandom } from "@open-infra/testing";
import { everyKind, plainShape } from "./elastic/cases.ts";
import { lowLatencyRank, normalRank, randomCase, randomLowLatencyCase } from "./v1/worlds.ts";

const timeoutMs = 60_000;
const seed = 5;
const everything = new URL("./elastic/everything.ts", import.meta.url);

function elastic(size: number, ranksPerNode: number, transport: "heap" | "tcp") {
  const parts = everyKind(plainShape(seed, size), 1, ranksPerNode < size);
  const data = { parts, services: { seed, operations: 24 } };
  return runThreads({ size, ranksPerNode, transport, module: everything, data, timeoutMs });
}

function normal(size: number, ranksPerNode: number, transport: "heap" | "tcp") {
  const random = seededRandom(seed + size);
  const cases = Array.from({ length: 4 }, () => randomCase(random, size));
  const module = normalRank;
  return runThreads({ size, ranksPerNode, transport, module, data: { cases }, timeoutMs });
}

function lowLatency(size: number, transport: "heap" | "tcp") {
  const random = seededRandom(seed + size);
  const cases = Array.from({ length: 4 }, () => randomLowLatencyCase(random, size));
  return runThreads({ size, transport, module: lowLatencyRank, data: { cases }, timeoutMs });
}

function lifecycle() {
  const module = new URL("./v1/worked-rank.ts", import.meta.url);
  return runThreads({ size: 2, module, export: "lifecycle", timeoutMs });
}

/** By name; each resolves when its ranks have ended well. */
export const commCases: Readonly<Record<string, () => Promise<unknown>>> = {
  "elastic, memory": () => elastic(4, 2, "heap"),
  "elastic, TCP": () => elastic(2, 1, "tcp"),
  "normal, memory": () => normal(4, 2, "heap"),
  "normal, TCP": () => normal(2, 1, "tcp"),
  "memory given back": lifecycle,
  "low latency, memory": () => lowLatency(3, "heap"),
  "low latency, TCP": () => lowLatency(2, "tcp"),
};
