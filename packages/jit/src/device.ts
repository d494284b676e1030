// A device runs operations. This file holds the interface, the reference device and the choice
// between devices; the device that compiles and launches C kernels is in cpu-device.ts.

import type { Recorder } from "@open-infra/profile";
import { InfraError } from "@open-infra/tensor";
import { CompilerMissingError, findCompiler } from "./compiler.ts";
import { CpuDevice } from "./cpu-device.ts";
import type { BackendName, Operation } from "./operation.ts";

export interface WarmupProgress {
  readonly done: number;
  readonly total: number;
  /** Kernels that were really compiled, not found in a cache. */
  readonly compiled: number;
  readonly kernel: string;
}

export interface WarmupOptions {
  readonly onProgress?: (progress: WarmupProgress) => void;
  readonly signal?: AbortSignal;
}

/** Runs operations on one kind of hardware. */
export interface Device extends Disposable {
  readonly backend: BackendName;
  /** One line for logs: backend, ISA, threads, compiler. */
  readonly description: string;
  readonly threads: number;
  /** Checks the arguments, then computes; outputs are complete on return. */
  run<A>(operation: Operation<A>, args: A): void;
  /** True, or the reason why this device cannot run it. */
  supports<A>(operation: Operation<A>, args: A): true | string;
  /**
   * Compiles in parallel every kernel that `body` would launch. Inside `body`, `run` checks its
   * arguments and takes note of the kernel but computes nothing.
   */
  warmup(body: () => void, options?: WarmupOptions): Promise<void>;
}

/** The operation has no implementation for these arguments on the chosen backend. */
export class UnsupportedError extends InfraError {
  constructor(operation: string, backend: string, reason: string) {
    super("unsupported", `${operation} cannot run on backend '${backend}': ${reason}`);
  }
}

/** Runs every operation's plain TypeScript reference. Slow, obvious, and public: the oracle. */
export class ReferenceDevice implements Device {
  readonly backend = "reference";
  readonly description = "reference (plain TypeScript, float64 accumulation)";
  readonly threads = 1;
  #dry = false;

  run<A>(operation: Operation<A>, args: A): void {
    operation.check(args);
    if (!this.#dry) operation.reference(args);
  }

  supports<A>(_operation: Operation<A>, _args: A): true {
    return true;
  }

  async warmup(body: () => void): Promise<void> {
    this.#dry = true;
    try {
      body();
    } finally {
      this.#dry = false;
    }
  }

  [Symbol.dispose](): void {}
}

export interface DeviceOptions {
  /** `auto` takes `cpu` where a compiler is found, else `reference`, and says so. @default "auto" */
  readonly backend?: "auto" | "cpu" | "reference";
  /** @default the machine's available parallelism */
  readonly threads?: number;
  /** @default OPEN_INFRA_JIT_CACHE_DIR or ~/.cache/open-infra/jit */
  readonly cacheDir?: string;
  /** Narrower instruction set than the machine's best, e.g. `avx2`. @default OPEN_INFRA_JIT_ISA or the best */
  readonly isa?: string;
  readonly recorder?: Recorder;
  /** Told once when `auto` falls back to the reference backend. @default writes to stderr */
  readonly onFallback?: (reason: string) => void;
}

/** Opens a device. @throws CompilerMissingError if `cpu` was asked for and no C compiler is found. */
export function createDevice(options: DeviceOptions = {}): Device {
  const backend = options.backend ?? "auto";
  if (backend === "reference") return new ReferenceDevice();
  const compiler = findCompiler();
  if (compiler === undefined) {
    const missing = new CompilerMissingError();
    if (backend === "cpu") throw missing;
    const say = options.onFallback ?? ((reason: string) => console.error(`open-infra: ${reason}`));
    say(`${missing.message} Running on the reference backend, which is slow.`);
    return new ReferenceDevice();
  }
  return new CpuDevice(compiler, options);
}
