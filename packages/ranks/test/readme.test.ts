// The README's example is the file here, and does what the README says.

import { readFileSync } from "node:fs";
import { findCompiler } from "@open-infra/jit";
import { runProcesses, runThreads } from "@open-infra/ranks";
import { requirement } from "@open-infra/testing";
import { expect, it } from "vitest";

const met = findCompiler() !== undefined || "no C compiler (apt-get install gcc libc6-dev)";
const skip = requirement("the README's example", met);
const read = (path: string): string => readFileSync(new URL(path, import.meta.url), "utf8");

it("is the one of the README", () => {
  const readme = read("../README.md");
  expect(readme).toContain(`\`\`\`c\n${read("example/ring-sum.c")}\`\`\``);
  expect(readme).toContain(`\`\`\`ts\n${read("example/ring-sum.ts")}\`\`\``);
});

it.skipIf(skip)("runs, as threads and as processes", async () => {
  const module = new URL("./example/ring-sum.ts", import.meta.url);
  const options = { size: 4, module, data: [1, 2, 3, 4], timeoutMs: 30_000 };
  expect(await runThreads(options)).toEqual([10, 3, 6, 10]);
  expect(await runProcesses(options)).toEqual([10, 3, 6, 10]);
});
