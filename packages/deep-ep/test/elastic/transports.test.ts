// The same cases and services where ranks are processes, some of them with several ranks, and
// where they are behind links.

import { findCompiler } from "@open-infra/jit";
import { hasUcx, type RunOptions, runProcesses, runThreads } from "@open-infra/ranks";
import { requirement, testSeed } from "@open-infra/testing";
import { describe, expect, it } from "vitest";
import { everyKind, flags, oddShapes, part, plainShape, someCases } from "./cases.ts";
import type { EverythingData } from "./everything.ts";

const seed = testSeed();
const compiler = findCompiler() !== undefined || "no C compiler (apt-get install gcc libc6-dev)";
const ucx = hasUcx() || "no libucp.so.0 (apt-get install libucx0)";

type Start = (options: RunOptions) => Promise<unknown[]>;

const transports: readonly { name: string; met: true | string; start: Start }[] = [
  { name: "processes", met: compiler, start: (o) => runProcesses(o) },
  {
    name: "processes of two ranks",
    met: compiler,
    start: (o) => runProcesses({ ...o, ranksPerProcess: 2 }),
  },
  { name: "tcp", met: compiler, start: (o) => runThreads({ ...o, transport: "tcp" }) },
  {
    name: "ucx",
    met: compiler === true ? ucx : compiler,
    start: (o) => runThreads({ ...o, transport: "ucx" }),
  },
];

describe.each(transports)(`over $name (seed ${seed})`, ({ name, met, start }) => {
  const skip = requirement(`ElasticBuffer over ${name}`, met);

  it.skipIf(skip)("everything holds on four ranks of two nodes", async () => {
    const size = 4;
    const odd = Object.values(oddShapes).flatMap((changed, i) =>
      flags.map((allowHybridMode) => {
        const shape = { ...plainShape(seed + i, size), ...changed };
        return part(shape, someCases(seed + i, 1), { allowHybridMode });
      }),
    );
    const large = { ...plainShape(seed, size), numMaxTokensPerRank: 60, hidden: 256 };
    const parts = [
      ...everyKind(plainShape(seed, size), 2, true),
      ...odd,
      part(large, someCases(seed, 1)),
    ];
    const data: EverythingData = { parts, services: { seed, operations: 32 } };
    const module = new URL("./everything.ts", import.meta.url);
    const held = await start({ size, module, data, ranksPerNode: 2, timeoutMs: 50_000 });
    const wanted = parts.reduce((sum, { cases }) => sum + cases.length, 0);
    expect(held, `seed ${seed}`).toEqual(Array.from({ length: size }, () => wanted));
  });
});
