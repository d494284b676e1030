// A slice of the long random run of ElasticBuffer.

import { findCompiler } from "@open-infra/jit";
import { requirement, testSeed } from "@open-infra/testing";
import { describe, expect, it } from "vitest";
import { soak } from "./elastic.soak.ts";

const compiler = findCompiler() !== undefined || "no C compiler (apt-get install gcc libc6-dev)";
const skip = requirement("the soak run of ElasticBuffer", compiler);

describe.skipIf(skip)("a slice of the soak run", () => {
  it("holds", async () => {
    const lines: string[] = [];
    await soak({ seed: testSeed(), minutes: 0.02, log: (line) => lines.push(line) });
    expect(lines.length).toBeGreaterThan(0);
  });
});
