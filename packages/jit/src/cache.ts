// From a kernel's description to loaded native code: memory, disk, read-only levels, and at last
// the compiler, once per key however many processes ask. One generator states the order of steps; a
// blocking and an asynchronous driver carry its steps out.

import { mkdirSync, readdirSync, renameSync, rmSync } from "node:fs";
import { availableParallelism } from "node:os";
import { join } from "node:path";
import {
  assemblyCommand,
  COMPILE_TIMEOUT_MS,
  type Command,
  commandLine,
  compileCommand,
  expectCompiled,
  kernelFlags,
  type Outcome,
  runAsync,
  runBlocking,
} from "./build.ts";
import { type Compiler, compilerIdentity } from "./compiler.ts";
import type { WarmupOptions } from "./device.ts";
import { type NativeLibrary, openLibrary } from "./driver.ts";
import {
  cacheProblem,
  makeBuildDir,
  publishEntry,
  readEntry,
  sourceFile,
  writeDurably,
} from "./entry.ts";
import { CacheError } from "./errors.ts";
import type { IsaTarget } from "./isa-flags.ts";
import { kernelKey } from "./key.ts";
import { type HeldLock, LockAttempts } from "./lock.ts";
import type { JitOptions } from "./options.ts";
import { PrecompiledHeader } from "./precompiled.ts";
import { sanitizerFlags } from "./sanitize.ts";
import { type KernelSpec, kernelSource } from "./source.ts";

/** A blocking caller cannot touch its lock while it compiles, so its lease covers the compile. */
const BLOCKING_LEASE_MS = COMPILE_TIMEOUT_MS + 20_000;
const ASYNC_LEASE_MS = 20_000;
const HEARTBEAT_MS = 3000;
const WAIT_LIMIT_MS = 3 * COMPILE_TIMEOUT_MS;

/** A kernel with its key. */
interface Job {
  readonly spec: KernelSpec;
  readonly source: string;
  readonly key: string;
}

type Step =
  | { readonly kind: "wait"; readonly ms: number }
  | { readonly kind: "run"; readonly command: Command; readonly lock: HeldLock | undefined };

/** Where the library is, and whether this call compiled it. */
interface Obtained {
  readonly library: string;
  readonly compiled: boolean;
}

/** Compiles and loads kernels for one compiler and instruction set. */
export class KernelCache {
  readonly #compiler: Compiler;
  readonly #identity: string;
  readonly #target: IsaTarget;
  readonly #flags: readonly string[];
  readonly #options: JitOptions;
  readonly #header: PrecompiledHeader;
  readonly #loaded = new Map<string, NativeLibrary>();

  constructor(compiler: Compiler, target: IsaTarget, options: JitOptions) {
    this.#compiler = compiler;
    this.#identity = compilerIdentity(compiler);
    this.#target = target;
    const extra = options.sanitize ? sanitizerFlags(compiler) : [];
    this.#flags = [...kernelFlags(target), ...extra];
    this.#options = options;
    const { cacheDir } = options;
    this.#header = new PrecompiledHeader(compiler, this.#identity, this.#flags, cacheDir);
  }

  /**
   * Finds or compiles a kernel and loads it, blocking.
   *
   * @throws CompileError, CacheError
   */
  load(spec: KernelSpec): { library: NativeLibrary; address: number } {
    const job = this.#job(spec);
    let library = this.#loaded.get(job.key);
    if (library === undefined) {
      const { library: path } = this.#obtainBlocking(job);
      if (this.#options.dumpAsm) this.#dumpAssembly(job);
      try {
        library = openLibrary(path);
      } catch (cause) {
        const problem = `holds ${path}, which cannot be loaded (${(cause as Error).message})`;
        throw new CacheError(this.#options.cacheDir, problem, { cause });
      }
      this.#loaded.set(job.key, library);
    }
    return { library, address: library.symbol(spec.entry) };
  }

  /**
   * Compiles what is missing, as many at once as there are cores. Stops at the first failure or
   * when aborted, once the running compilers have ended. @throws CompileError, CacheError
   */
  async compileAll(specs: readonly KernelSpec[], options: WarmupOptions = {}): Promise<void> {
    const jobs = specs.map((spec) => this.#job(spec));
    const byKey = new Map<string, Promise<Obtained>>();
    const stop = new AbortController();
    const signal = options.signal ? AbortSignal.any([options.signal, stop.signal]) : stop.signal;
    let next = 0;
    let done = 0;
    let compiled = 0;
    const worker = async (): Promise<void> => {
      for (let job = jobs[next++]; job !== undefined; job = jobs[next++]) {
        signal.throwIfAborted();
        const first = !byKey.has(job.key);
        const pending = byKey.get(job.key) ?? this.#obtainAsync(job, signal);
        byKey.set(job.key, pending);
        const obtained = await pending;
        if (first && obtained.compiled) compiled++;
        done++;
        const progress = { done, total: jobs.length, compiled, kernel: job.spec.name };
        options.onProgress?.(progress);
      }
    };
    const workers = Array.from({ length: availableParallelism() }, async () => {
      try {
        await worker();
      } catch (error) {
        stop.abort(error);
        throw error;
      }
    });
    const results = await Promise.allSettled(workers);
    if (options.signal?.aborted) throw options.signal.reason;
    const failed = results.find((result) => result.status === "rejected");
    if (failed !== undefined) throw stop.signal.reason;
  }

  #job(spec: KernelSpec): Job {
    const source = kernelSource(spec);
    const key = kernelKey({ compiler: this.#identity, flags: this.#flags, source });
    return { spec, source, key };
  }

  #debug(line: string): void {
    if (this.#options.debug) this.#options.log(line);
  }

  #lookup(job: Job): string | undefined {
    for (const dir of [this.#options.cacheDir, ...this.#options.readonlyCacheDirs]) {
      const entry = readEntry(dir, job.key);
      if (entry.state === "ok") return entry.library;
      if (entry.state === "corrupt") {
        this.#options.log(`${join(dir, job.key)} is damaged (${entry.reason}), ignoring it`);
      }
    }
    return undefined;
  }

  *#steps(job: Job, leaseMs: number): Generator<Step, Obtained, Outcome | undefined> {
    const { cacheDir } = this.#options;
    const found = this.#lookup(job);
    if (found !== undefined) {
      this.#debug(`hit ${job.key.slice(0, 12)} ${job.spec.name}`);
      return { library: found, compiled: false };
    }
    const attempts = new LockAttempts(join(cacheDir, `.lock-${job.key}`), leaseMs);
    const giveUpMs = performance.now() + WAIT_LIMIT_MS;
    let waitMs = 5;
    for (;;) {
      const lock = this.#tryLock(attempts);
      if (lock !== undefined) {
        const held = lock === "own-thread" ? undefined : lock;
        try {
          const meanwhile = readEntry(cacheDir, job.key);
          if (meanwhile.state === "ok") return { library: meanwhile.library, compiled: false };
          return { library: yield* this.#build(job, held), compiled: true };
        } finally {
          held?.release();
        }
      }
      if (performance.now() > giveUpMs) {
        throw new CacheError(cacheDir, `has ${job.key} locked by ${attempts.holder} for too long`);
      }
      this.#debug(`wait ${job.key.slice(0, 12)} for ${attempts.holder}`);
      yield { kind: "wait", ms: waitMs };
      waitMs = Math.min(50, waitMs * 1.5);
    }
  }

  #tryLock(attempts: LockAttempts): HeldLock | "own-thread" | undefined {
    const { cacheDir } = this.#options;
    try {
      mkdirSync(cacheDir, { recursive: true, mode: 0o700 });
      return attempts.attempt();
    } catch (error) {
      throw cacheProblem(cacheDir, error);
    }
  }

  *#build(job: Job, lock: HeldLock | undefined): Generator<Step, string, Outcome | undefined> {
    const { cacheDir } = this.#options;
    // Whoever holds the lock owns all builds of the key; others' are left over from a crash.
    if (lock !== undefined) removeBuilds(cacheDir, job.key);
    const dir = makeBuildDir(cacheDir, job.key);
    try {
      try {
        writeDurably(join(dir, sourceFile), job.source);
      } catch (error) {
        throw cacheProblem(cacheDir, error);
      }
      const header = yield* this.#headerFor(job.source);
      const start = performance.now();
      const [command, outcome] = yield* this.#compile(dir, header, lock);
      expectCompiled(job.spec.name, cacheDir, command, outcome);
      const tookMs = performance.now() - start;
      this.#debug(`compiled ${job.key.slice(0, 12)} ${job.spec.name} in ${tookMs.toFixed(0)} ms`);
      const warnings = outcome.output.trim();
      if (warnings !== "") this.#debug(`the compiler says of ${job.spec.name}:\n${warnings}`);
      return publishEntry(cacheDir, dir, {
        key: job.key,
        name: job.spec.name,
        isa: this.#target.isa,
        compiler: this.#identity,
        flags: this.#flags,
      });
    } finally {
      rmSync(dir, { recursive: true, force: true });
    }
  }

  /** One compile; a second one without the header if the first one fails with it. */
  *#compile(
    dir: string,
    header: readonly string[],
    lock: HeldLock | undefined,
  ): Generator<Step, readonly [Command, Outcome], Outcome | undefined> {
    const command = compileCommand(this.#compiler, this.#flags, dir, header);
    if (this.#options.printCommand) this.#options.log(commandLine(command));
    const outcome = (yield { kind: "run", command, lock }) as Outcome;
    if (header.length === 0 || outcome.status === 0) return [command, outcome];
    const again = yield* this.#compile(dir, [], lock);
    if (again[1].status === 0) this.#header.giveUp();
    return again;
  }

  *#headerFor(source: string): Generator<Step, readonly string[], Outcome | undefined> {
    const steps = this.#header.argumentsFor(source);
    let result = steps.next();
    try {
      while (!result.done) {
        const command = result.value;
        if (this.#options.printCommand) this.#options.log(commandLine(command));
        const outcome = yield { kind: "run", command, lock: undefined };
        result = steps.next(outcome as Outcome);
      }
      return result.value;
    } finally {
      steps.return([]);
    }
  }

  #obtainBlocking(job: Job): Obtained {
    const steps = this.#steps(job, BLOCKING_LEASE_MS);
    const pause = new Int32Array(new SharedArrayBuffer(4));
    let result = steps.next();
    while (!result.done) {
      const step = result.value;
      if (step.kind === "wait") {
        Atomics.wait(pause, 0, 0, step.ms);
        result = steps.next();
      } else {
        result = steps.next(runBlocking(step.command));
      }
    }
    return result.value;
  }

  async #obtainAsync(job: Job, signal: AbortSignal): Promise<Obtained> {
    const steps = this.#steps(job, ASYNC_LEASE_MS);
    try {
      let result = steps.next();
      while (!result.done) {
        const step = result.value;
        if (step.kind === "wait") {
          await new Promise((resolve) => setTimeout(resolve, step.ms));
          signal.throwIfAborted();
          result = steps.next();
        } else {
          const heart = setInterval(() => step.lock?.touch(), HEARTBEAT_MS);
          const outcome = await runAsync(step.command, signal).finally(() => clearInterval(heart));
          signal.throwIfAborted();
          result = steps.next(outcome);
        }
      }
      return result.value;
    } finally {
      // Runs the generator's own finally blocks if we leave early: the lock, the build directory.
      steps.return(undefined as never);
    }
  }

  #dumpAssembly(job: Job): void {
    const { cacheDir, log } = this.#options;
    const output = join(cacheDir, "asm", `${job.key}.s`);
    const dir = makeBuildDir(cacheDir, `asm-${job.key}`);
    try {
      mkdirSync(join(cacheDir, "asm"), { recursive: true });
      writeDurably(join(dir, sourceFile), job.source);
      const command = assemblyCommand(this.#compiler, this.#flags, dir, "kernel.s");
      const outcome = runBlocking(command);
      if (outcome.status !== 0) {
        log(`no assembly of ${job.spec.name}: ${outcome.error?.message ?? outcome.output}`);
        return;
      }
      renameSync(join(dir, "kernel.s"), output);
      log(`assembly of ${job.spec.name}: ${output}`);
    } catch (error) {
      throw cacheProblem(cacheDir, error);
    } finally {
      rmSync(dir, { recursive: true, force: true });
    }
  }
}

function removeBuilds(dir: string, key: string): void {
  try {
    for (const name of readdirSync(dir)) {
      if (name.startsWith(`.build-${key}-`))
        rmSync(join(dir, name), { recursive: true, force: true });
    }
  } catch (error) {
    throw cacheProblem(dir, error);
  }
}
