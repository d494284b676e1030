// `npm run sanitize`: every kernel of the repository over the small calls of its package's
// test/kernel-cases.ts, first built with AddressSanitizer and UBSan, then as it is on memory
// between forbidden pages. Ends with 1 and the report if anything is touched that must not be, or
// if a kernel has no case. `--mode asan` or `--mode guard` runs one of the two.

import { spawn } from "node:child_process";
import { fileURLToPath } from "node:url";
import { parseArgs } from "node:util";
import { findCompiler, sanitizerEnvironment } from "@open-infra/jit";

/** Exit status of a run that was clean, but left kernels out. */
export const uncoveredStatus = 3;

/** How kernels are watched. */
export type WatchMode = "asan" | "guard";

/** How a watched run ended. */
export interface WatchResult {
  readonly ok: boolean;
  /** All it printed. */
  readonly output: string;
  /** The case that was running when it ended, if it did not finish. */
  readonly lastCase: string | undefined;
}

/**
 * Runs cases in a watched process: all of the repository, or those of one file.
 *
 * @throws JitOptionError where the compiler has no sanitizers; an error if there is no compiler.
 */
export function watch(
  mode: WatchMode,
  options: { readonly cases?: string; readonly onLine?: (line: string) => void } = {},
): Promise<WatchResult> {
  const compiler = findCompiler();
  if (compiler === undefined) throw new Error("No C compiler; install gcc or clang.");
  const program = fileURLToPath(new URL("sanitize-run.ts", import.meta.url));
  const args = ["--conditions=@open-infra/source", program, "--mode", mode];
  if (options.cases !== undefined) args.push("--cases", options.cases);
  const extra = mode === "asan" ? sanitizerEnvironment(compiler) : {};
  const child = spawn(process.execPath, args, { env: { ...process.env, ...extra } });
  let output = "";
  let rest = "";
  let lastCase: string | undefined;
  const take = (chunk: string): void => {
    output += chunk;
    const lines = (rest + chunk).split("\n");
    rest = lines.pop() as string;
    for (const line of lines) {
      if (line.startsWith("case ")) lastCase = line.slice(5);
      else options.onLine?.(line);
    }
  };
  child.stdout.setEncoding("utf8").on("data", take);
  child.stderr.setEncoding("utf8").on("data", take);
  return new Promise((resolve) => {
    child.on("close", (code, signal) => {
      if (rest !== "") take("\n");
      if (signal !== null) take(`ended by ${signal}\n`);
      const finished = code === 0 || code === uncoveredStatus;
      resolve({ ok: code === 0, output, lastCase: finished ? undefined : lastCase });
    });
  });
}

if (import.meta.main) {
  const { values } = parseArgs({ options: { mode: { type: "string" } } });
  const modes = (["asan", "guard"] as const).filter(
    (mode) => values.mode === undefined || values.mode === mode,
  );
  for (const mode of modes) {
    const start = performance.now();
    const { ok, lastCase } = await watch(mode, { onLine: (line) => console.log(line) });
    const seconds = ((performance.now() - start) / 1000).toFixed(0);
    const where = lastCase === undefined ? "" : ` in '${lastCase}'`;
    console.log(`${mode}: ${ok ? "clean" : `FAILED${where}`}, ${seconds} s`);
    if (!ok) process.exitCode = 1;
  }
}
