// Small runs that reach every communication kernel of the package, for `npm run sanitize`: ranks
// are threads of the watched process, over memory and over TCP. Each rank checks its own results.

import { runThreads } from "@open-infra/ranks";
import { seededRandom } from "@open-infra/testing";
import { randomCases, type Script } from "./ranks/collectives.ts";

const module = new URL("./ranks/collectives.ts", import.meta.url);
/** Small chunks and few inline bytes, so that short buffers take many turns. */
const open = { chunkBytes: 512, smallBytes: 256, stageBytes: 4096 };

function collectives(size: number, ranksPerNode: number, transport: "heap" | "tcp") {
  const cases = randomCases(seededRandom(size * 10 + ranksPerNode), 24, size);
  const data: Script[] = [{ cases, open }];
  return runThreads({ size, ranksPerNode, transport, module, data, timeoutMs: 60_000 });
}

function buckets() {
  const rank = new URL("./ranks/buckets.ts", import.meta.url);
  return runThreads({ size: 3, ranksPerNode: 2, module: rank, data: 7, timeoutMs: 60_000 });
}

/** By name; each resolves when its ranks have ended well. */
export const commCases: Readonly<Record<string, () => Promise<unknown>>> = {
  "memory, one node": () => collectives(3, 3, "heap"),
  "memory, three nodes": () => collectives(6, 2, "heap"),
  "gradient buckets": buckets,
  TCP: () => collectives(3, 1, "tcp"),
};
