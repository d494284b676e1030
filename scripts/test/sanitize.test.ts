// `npm run sanitize` can fail: planted faults are found, each where it must be, and a sound kernel
// passes. That the repository's own kernels pass is CI's job.

import { fileURLToPath } from "node:url";
import { findCompiler, sanitizerEnvironment } from "@open-infra/jit";
import { type Requirement, requirement } from "@open-infra/testing";
import { afterEach, describe, expect, it, vi } from "vitest";
import { type WatchMode, type WatchResult, watch } from "../sanitize.ts";
import type { plants } from "./planted/kernel-cases.ts";

function sanitizers(): Requirement {
  const compiler = findCompiler();
  if (process.platform !== "linux") return "watched kernels run on Linux only";
  if (compiler === undefined) return "no C compiler; install one, e.g. 'apt-get install gcc'";
  try {
    sanitizerEnvironment(compiler);
    return true;
  } catch (error) {
    return (error as Error).message;
  }
}

const cases = fileURLToPath(new URL("planted/kernel-cases.ts", import.meta.url));

/** Outside the memory, in the kernel itself. */
const overflow = /SUMMARY: AddressSanitizer: heap-buffer-overflow .*planted\.c:\d+ in planted/;

function plant(mode: WatchMode, what: (typeof plants)[number]): Promise<WatchResult> {
  vi.stubEnv("OPEN_INFRA_TEST_PLANT", what);
  return watch(mode, { cases });
}

describe.skipIf(requirement("watched kernels", sanitizers()))("watched kernels", () => {
  afterEach(() => vi.unstubAllEnvs());

  it("pass where nothing is planted", async () => {
    for (const mode of ["asan", "guard"] as const) {
      const { ok, output, lastCase } = await plant(mode, "nothing");
      expect(ok, output).toBe(true);
      expect(lastCase).toBeUndefined();
      expect(output).toMatch(/1 kernels in \d+ launches, nothing reported/);
    }
  });

  it.each([
    ["after", overflow],
    ["before", overflow],
    ["overflow", /planted\.c:\d+:\d+: runtime error: signed integer overflow/],
    ["scratch", overflow],
  ] as const)("are reported with sanitizers: %s", async (what, report) => {
    const { ok, output, lastCase } = await plant("asan", what);
    expect(output).toMatch(report);
    expect(ok).toBe(false);
    expect(lastCase).toMatch(what);
  });

  it.each(
    process.arch === "x64"
      ? (["after", "before", "assembly"] as const)
      : (["after", "before"] as const),
  )("end on a forbidden page: %s", async (what) => {
    const { ok, output, lastCase } = await plant("guard", what);
    expect(output).toMatch(/ended by SIG(SEGV|BUS)/);
    expect(ok).toBe(false);
    expect(lastCase).toMatch(what);
  });
});
