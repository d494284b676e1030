// The thread pool under sanitizers, by a C program that needs no Node: races between launches,
// pools side by side, threads or memory refused, forks.

import { spawnSync } from "node:child_process";
import { join } from "node:path";
import { fileURLToPath } from "node:url";
import { type Requirement, requirement } from "@open-infra/testing";
import { describe, expect, it } from "vitest";
import { found, needsCompiler, tempDir } from "./helpers.ts";

const here = fileURLToPath(new URL("kernels", import.meta.url));
const dir = tempDir();

function build(name: string, flags: readonly string[]): { program: string; output: string } {
  const program = join(dir, name);
  const include = join(here, "../../kernels/include");
  const args = ["-std=gnu17", "-D_GNU_SOURCE", "-O1", "-pthread", ...flags, `-I${include}`];
  const words = [...(found?.words ?? []), ...args, "-o", program, join(here, "pool.c")];
  const run = spawnSync(found?.path ?? "cc", words, { encoding: "utf8" });
  return { program, output: run.stderr ?? String(run.error) };
}

function run(program: string, test: string): string {
  const { status, signal, stderr } = spawnSync(program, [test], {
    encoding: "utf8",
    timeout: 50_000,
  });
  return `${status ?? signal} ${stderr}`.trim();
}

const needsLinux: Requirement =
  needsCompiler !== true || process.platform === "linux"
    ? needsCompiler
    : "Linux's limits and forks";

describe.skipIf(
  requirement("thread pool", needsLinux, needsCompiler === true ? "optional" : "required"),
)("thread pool", () => {
  const plain = build("plain", []);

  it.each(["side-by-side", "no-threads", "forked"])("%s", (test) => {
    expect(plain.output).toBe("");
    expect(run(plain.program, test)).toBe("0");
  });

  it("has no races that ThreadSanitizer finds", () => {
    const sanitized = build("tsan", ["-g", "-fsanitize=thread"]);
    const missing = sanitized.output === "" ? true : "ThreadSanitizer's library (libtsan, of gcc)";
    if (requirement("thread pool races", missing, "optional")) return;
    const result = run(sanitized.program, "side-by-side");
    // Some kernels lay memory out in ways the sanitizer cannot start under; that is not a race.
    const starts = /unexpected memory mapping/.test(result) ? "a kernel it can run on" : true;
    if (requirement("thread pool races", starts, "optional")) return;
    expect(result).toBe("0");
  });
});
