// What the tests of this package share: temporary folders, small kernels in them, compilers that
// count or dawdle, and other processes that compile.

import { type ChildProcess, spawn } from "node:child_process";
import { chmodSync, existsSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { fileURLToPath, pathToFileURL } from "node:url";
import type { Requirement } from "@open-infra/testing";
import { afterAll } from "vitest";
import { KernelCache } from "../src/cache.ts";
import { type Compiler, findCompiler } from "../src/compiler.ts";
import { compilerAdvice } from "../src/errors.ts";
import { scalarTarget } from "../src/isa.ts";
import { type JitOptions, readJitOptions } from "../src/options.ts";
import type { KernelSpec } from "../src/source.ts";

const made: string[] = [];
afterAll(() => {
  for (const dir of made) rmSync(dir, { recursive: true, force: true });
});

/** A folder that goes away after the file's tests. */
export function tempDir(): string {
  const dir = mkdtempSync(join(tmpdir(), "open-infra-jit-"));
  made.push(dir);
  return dir;
}

export const found: Compiler | undefined = findCompiler({ cc: process.env.CC });

/** For `describe.skipIf(requirement(…))`. */
export const needsCompiler: Requirement =
  found === undefined ? `no C compiler. ${compilerAdvice}` : true;

export function writeFile(dir: string, name: string, text: string): URL {
  const path = join(dir, name);
  writeFileSync(path, text);
  return pathToFileURL(path);
}

/** A kernel that returns a number. */
export function numberKernel(dir: string, value: number): KernelSpec {
  const source = writeFile(dir, "number.c", `int64_t number(void *p) { return VALUE; }\n`);
  return {
    name: `number|${value}`,
    source,
    entry: "number",
    constants: { VALUE: value },
    params: {},
  };
}

export function options(cacheDir: string, more: Partial<JitOptions> = {}): JitOptions {
  return { ...readJitOptions({}), cacheDir, log: () => {}, ...more };
}

/** A cache that compiles for the portable floor with the machine's compiler, or another. */
export function openCache(
  cacheDir: string,
  more: Partial<JitOptions> = {},
  compiler: Compiler = found as Compiler,
): KernelCache {
  return new KernelCache(compiler, scalarTarget, options(cacheDir, more));
}

/** Loads a kernel of {@link numberKernel} and calls it. */
export function callNumber(cache: KernelCache, spec: KernelSpec): number {
  return cache.load(spec).library.func("number")(new Int32Array(2));
}

/** A compiler that is the real one, after a shell script's lines. */
export function wrappedCompiler(dir: string, lines: string): Compiler {
  const path = join(dir, `cc-${Math.random().toString(36).slice(2)}.sh`);
  const real = [found?.path, ...(found?.words ?? [])].join(" ");
  writeFileSync(path, `#!/bin/sh\n${lines}\nexec ${real} "$@"\n`);
  chmodSync(path, 0o755);
  return { ...(found as Compiler), path, words: [] };
}

/** A compiler that writes a line for each run. */
export function countingCompiler(dir: string): { compiler: Compiler; count: () => number } {
  const log = join(dir, `runs-${Math.random().toString(36).slice(2)}`);
  const lines = `case "$*" in *-fsyntax-only*) ;; *) echo run >> '${log}' ;; esac`;
  const compiler = wrappedCompiler(dir, lines);
  const count = (): number =>
    existsSync(log) ? readFileSync(log, "utf8").split("\n").length - 1 : 0;
  return { compiler, count };
}

/** Another process that loads `numberKernel(dir, value)`; see compile-child.ts. */
export function startChild(
  dir: string,
  cacheDir: string,
  cc: string,
  value: number,
): { child: ChildProcess; done: Promise<{ code: number | null; output: string }> } {
  const program = fileURLToPath(new URL("compile-child.ts", import.meta.url));
  const args = ["--conditions=@open-infra/source", program, dir, String(value)];
  const child = spawn(process.execPath, args, {
    env: { ...process.env, CC: cc, OPEN_INFRA_JIT_CACHE_DIR: cacheDir },
    stdio: ["ignore", "pipe", "pipe"],
  });
  let output = "";
  child.stdout?.on("data", (chunk) => (output += chunk));
  child.stderr?.on("data", (chunk) => (output += chunk));
  const done = new Promise<{ code: number | null; output: string }>((resolve) =>
    child.on("close", (code) => resolve({ code, output })),
  );
  return { child, done };
}

/** Waits until something is true. @throws after ten seconds, naming it. */
export async function until(what: string, isTrue: () => boolean): Promise<void> {
  const giveUp = performance.now() + 10_000;
  while (!isTrue()) {
    if (performance.now() > giveUp) throw new Error(`not within 10 s: ${what}`);
    await new Promise((resolve) => setTimeout(resolve, 10));
  }
}
