// The compile itself: the command line, running it (blocking, or with an AbortSignal), and what its
// outcome means. It knows nothing of caches and locks.

import { type ChildProcess, spawn, spawnSync } from "node:child_process";
import { statSync } from "node:fs";
import { join } from "node:path";
import type { Compiler } from "./compiler.ts";
import { libraryFile, sourceFile } from "./entry.ts";
import { CacheError, CompileError } from "./errors.ts";
import type { IsaTarget } from "./isa-flags.ts";

/** A compile that takes longer is killed. */
export const COMPILE_TIMEOUT_MS = 180_000;

const OUTPUT_LIMIT_BYTES = 1 << 20;

const commonFlags = [
  "-std=gnu17",
  "-D_GNU_SOURCE",
  "-O3",
  "-fPIC",
  "-shared",
  "-pthread",
  "-fno-math-errno",
  "-fno-trapping-math",
  "-ffp-contract=fast",
  "-Wall",
  "-Wno-psabi",
  "-Werror=implicit-function-declaration",
] as const;

/** A compiler's run: in which directory, which program, with what. */
export interface Command {
  readonly dir: string;
  readonly program: string;
  readonly args: readonly string[];
}

/** How a run ended. */
export interface Outcome {
  readonly status: number | null;
  readonly signal: string | null;
  readonly output: string;
  /** It could not be started, or ran out of time. */
  readonly error: Error | undefined;
}

/** All flags that decide the machine code; no paths. */
export function kernelFlags(target: IsaTarget): readonly string[] {
  return [...commonFlags, ...target.flags];
}

/** Compiles `kernel.c` in `dir` into `kernel.so`; `header` is arguments before its name. */
export function compileCommand(
  compiler: Compiler,
  flags: readonly string[],
  dir: string,
  header: readonly string[] = [],
): Command {
  const args = [...compiler.words, ...flags, ...header, "-o", libraryFile, sourceFile, "-lm"];
  return { dir, program: compiler.path, args };
}

/** Compiles `kernel.c` in `dir` into assembly. */
export function assemblyCommand(
  compiler: Compiler,
  flags: readonly string[],
  dir: string,
  output: string,
): Command {
  const kept = flags.filter((flag) => flag !== "-shared");
  const args = [...compiler.words, ...kept, "-S", "-o", output, sourceFile];
  return { dir, program: compiler.path, args };
}

/** For a person to run again. */
export function commandLine(command: Command): string {
  const words = [command.program, ...command.args];
  const quoted = words.map((word) => (/[^\w@%+=:,./-]/.test(word) ? `'${word}'` : word));
  return `cd ${command.dir} && ${quoted.join(" ")}`;
}

/**
 * The compiler's own temporary files go where the result goes, so that one clean-up finds all. A
 * sanitizer's runtime loaded before this process is not for the compiler.
 */
function environment(dir: string): NodeJS.ProcessEnv {
  const env: NodeJS.ProcessEnv = { ...process.env, TMPDIR: dir, LC_ALL: "C", LANGUAGE: "C" };
  if (/asan/.test(env.LD_PRELOAD ?? "")) delete env.LD_PRELOAD;
  return env;
}

/** Runs a command, blocking this thread. */
export function runBlocking(command: Command): Outcome {
  const run = spawnSync(command.program, command.args, {
    cwd: command.dir,
    env: environment(command.dir),
    encoding: "utf8",
    maxBuffer: OUTPUT_LIMIT_BYTES,
    timeout: COMPILE_TIMEOUT_MS,
    killSignal: "SIGKILL",
    stdio: ["ignore", "pipe", "pipe"],
  });
  return {
    status: run.status,
    signal: run.signal,
    output: `${run.stderr ?? ""}${run.stdout ?? ""}`,
    error: run.error,
  };
}

/** Runs a command; aborting kills it with all it started. Resolves when it has ended. */
export function runAsync(command: Command, signal: AbortSignal | undefined): Promise<Outcome> {
  return new Promise((resolve) => {
    const child: ChildProcess = spawn(command.program, command.args, {
      cwd: command.dir,
      env: environment(command.dir),
      stdio: ["ignore", "pipe", "pipe"],
      // A group of its own, because a compiler driver does not take its parts down with it.
      detached: true,
    });
    let output = "";
    let error: Error | undefined;
    const collect = (chunk: string): void => {
      if (output.length < OUTPUT_LIMIT_BYTES) output += chunk;
    };
    child.stdout?.setEncoding("utf8").on("data", collect);
    child.stderr?.setEncoding("utf8").on("data", collect);
    const kill = (): void => {
      try {
        if (child.pid !== undefined) process.kill(-child.pid, "SIGKILL");
      } catch {
        // Ended already.
      }
    };
    const timer = setTimeout(() => {
      error = new Error(`took longer than ${COMPILE_TIMEOUT_MS / 1000} s`);
      kill();
    }, COMPILE_TIMEOUT_MS);
    const finish = (status: number | null, killed: string | null): void => {
      clearTimeout(timer);
      signal?.removeEventListener("abort", kill);
      resolve({ status, signal: killed, output, error });
    };
    child.on("error", (cause) => {
      error ??= cause;
      if (child.pid === undefined) finish(null, null);
    });
    child.on("close", finish);
    if (signal?.aborted) kill();
    else signal?.addEventListener("abort", kill, { once: true });
  });
}

/**
 * Checks that a compile made its library.
 *
 * @throws CompileError with the compiler's output; CacheError if the disk is full.
 */
export function expectCompiled(
  kernel: string,
  cacheDir: string,
  command: Command,
  outcome: Outcome,
): void {
  const { status, signal, output, error } = outcome;
  if (/No space left on device|Disk quota exceeded/.test(output)) {
    throw new CacheError(cacheDir, "has no space left for the compiler");
  }
  if (error !== undefined) {
    throw new CompileError(kernel, `${command.program}: ${error.message}`, output);
  }
  if (signal !== null) {
    const why = signal === "SIGKILL" ? ", perhaps for lack of memory" : "";
    throw new CompileError(kernel, `${command.program} was killed by ${signal}${why}`, output);
  }
  if (status !== 0) throw new CompileError(kernel, `${command.program} failed (${status})`, output);
  const bytes = statSync(join(command.dir, libraryFile), { throwIfNoEntry: false })?.size ?? 0;
  if (bytes === 0) {
    throw new CompileError(
      kernel,
      `${command.program} succeeded but wrote no ${libraryFile}`,
      output,
    );
  }
}
