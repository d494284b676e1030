// Kernels under AddressSanitizer and UndefinedBehaviorSanitizer: the compiler's flags, and the
// environment that a process needs to run them. The sanitizers' runtime must be in a process before
// anything else, so it cannot be switched on inside one that runs.

import { spawnSync } from "node:child_process";
import { existsSync, readFileSync } from "node:fs";
import type { Compiler } from "./compiler.ts";
import { JitOptionError } from "./errors.ts";

/** The variable that switches sanitizers on; also the name that errors say. */
export const sanitizeVariable = "OPEN_INFRA_JIT_SANITIZE";

const isClang = (compiler: Compiler): boolean => /clang/i.test(compiler.version);

/** Flags added to a kernel's own; part of its key, so that caches are shared without harm. */
export function sanitizerFlags(compiler: Compiler): readonly string[] {
  return [
    "-O1", // Half the compile time of -O3, and accesses stay where the source has them.
    "-fsanitize=address,undefined",
    "-fno-sanitize-recover=undefined", // The first report ends the process, as an address's does.
    "-fno-omit-frame-pointer",
    "-g1",
    ...(isClang(compiler) ? ["-shared-libsan"] : []),
  ];
}

/** The runtime's shared library, or undefined where the compiler came without one. */
export function sanitizerRuntime(compiler: Compiler): string | undefined {
  const name = isClang(compiler)
    ? `libclang_rt.asan-${compiler.target.split("-")[0]}.so`
    : "libasan.so";
  const args = [...compiler.words, `-print-file-name=${name}`];
  const run = spawnSync(compiler.path, args, { encoding: "utf8" });
  const path = run.stdout?.trim() ?? "";
  return path.startsWith("/") && existsSync(path) ? path : undefined;
}

/**
 * Variables for a process whose devices run sanitized kernels (Linux): the runtime loaded first, no
 * search for leaks (the JavaScript engine has its own ways), and the processor's faults reported
 * like all else.
 *
 * @throws JitOptionError where the compiler has no runtime.
 */
export function sanitizerEnvironment(compiler: Compiler): Readonly<Record<string, string>> {
  const runtime = process.platform === "linux" ? sanitizerRuntime(compiler) : undefined;
  if (runtime === undefined) {
    throw new JitOptionError(
      sanitizeVariable,
      `asked of ${compiler.version} on ${process.platform}, which has no sanitizer runtime`,
      "gcc or clang on Linux with its runtime, e.g. 'apt-get install libasan8 libubsan1'",
    );
  }
  return {
    [sanitizeVariable]: "1",
    LD_PRELOAD: runtime,
    // Its copies of stack frames, for use after return, are too loosely aligned for wide vectors.
    ASAN_OPTIONS: "detect_leaks=0:handle_segv=2:detect_stack_use_after_return=0",
    UBSAN_OPTIONS: "print_stacktrace=1",
  };
}

/** @throws JitOptionError if this process was started without the runtime. */
export function expectSanitizerRuntime(): void {
  const maps = "/proc/self/maps";
  const loaded = existsSync(maps) && /asan/.test(readFileSync(maps, "utf8"));
  if (loaded) return;
  throw new JitOptionError(
    sanitizeVariable,
    "'1' in a process without the sanitizers' runtime",
    "one started with LD_PRELOAD=$(cc -print-file-name=libasan.so), as 'npm run sanitize' does",
  );
}
