// The native core under sanitizers: test/native/stress.c is compiled with ranks.c and run, under
// ThreadSanitizer for races, under AddressSanitizer and UBSan for memory.

import { spawnSync } from "node:child_process";
import { mkdtempSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { fileURLToPath } from "node:url";
import { findCompiler } from "@open-infra/jit";
import { requirement } from "@open-infra/testing";
import { describe, expect, it } from "vitest";

const compiler = findCompiler()?.path ?? "cc";
const path = (name: string): string => fileURLToPath(new URL(name, import.meta.url));

/** Compiles; returns what the compiler said if it failed. */
function compile(source: string, flags: readonly string[], output: string): string {
  const args = [
    ...["-std=gnu17", "-D_GNU_SOURCE", "-O1", "-g", "-Wall", "-Wextra", "-Werror", ...flags],
    ...["-I", path("../kernels/include"), "-I", path("../../jit/kernels/include")],
    ...[source, "-o", output, "-lpthread", "-ldl"],
  ];
  const { status, stderr, error } = spawnSync(compiler, args, { encoding: "utf8" });
  return status === 0 ? "" : stderr || String(error);
}

/** True, or why a sanitizer cannot be used here. */
function canUse(flags: readonly string[]): true | string {
  if (process.platform !== "linux") return "the stress program is Linux's";
  const dir = mkdtempSync(join(tmpdir(), "oi-sanitizer-"));
  try {
    const source = join(dir, "empty.c");
    writeFileSync(source, "int main(void) { return 0; }\n");
    const output = join(dir, "empty");
    const problem = compile(source, flags, output);
    if (problem !== "") return `no compiler with ${flags.join(" ")} (apt-get install gcc)`;
    // Some kernels lay memory out as the sanitizer cannot use.
    const { status } = spawnSync(output);
    return status === 0 || `programs built with ${flags.join(" ")} do not start here`;
  } finally {
    rmSync(dir, { recursive: true });
  }
}

const sanitizers = [
  // Copies that the compiler writes out itself would not be watched.
  { name: "ThreadSanitizer", flags: ["-fsanitize=thread", "-fno-builtin"] },
  {
    name: "AddressSanitizer and UBSan",
    flags: ["-fsanitize=address,undefined", "-fno-sanitize-recover=all"],
  },
];

describe.each(sanitizers)("the native core under $name", ({ name, flags }) => {
  const skip = requirement(`the native core under ${name}`, canUse(flags));

  it.skipIf(skip)("has no race, lost wake-up or stray access", { timeout: 120_000 }, () => {
    const dir = mkdtempSync(join(tmpdir(), "oi-stress-"));
    try {
      const program = join(dir, "stress");
      expect(compile(path("native/stress.c"), flags, program)).toBe("");
      for (const [ranks, rounds] of [
        [2, 600],
        [4, 300],
        [8, 100],
      ]) {
        const options = { encoding: "utf8", timeout: 60_000 } as const;
        const { stdout, stderr } = spawnSync(program, [`${ranks}`, `${rounds}`], options);
        expect(stderr).toBe("");
        expect(stdout).toMatch(new RegExp(`^ok: ${ranks} ranks, ${rounds} rounds, 0 wrong`));
      }
    } finally {
      rmSync(dir, { recursive: true });
    }
  });
});
