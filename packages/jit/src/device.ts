// What a device is: it runs operations on one kind of hardware. Interfaces only, and nothing here
// knows of C, compilers or thread pools; the devices are in cpu-device.ts and reference-device.ts,
// the choice between them in create-device.ts.

import type { Recorder } from "@open-infra/profile";
import type { Tensor } from "@open-infra/tensor";
import type { BackendName, Operation } from "./operation.ts";

/** How far a warm-up is. */
export interface WarmupProgress {
  readonly done: number;
  readonly total: number;
  /** Kernels that were really compiled, not found in a cache. */
  readonly compiled: number;
  /** The kernel just finished. */
  readonly kernel: string;
}

export interface WarmupOptions {
  readonly onProgress?: (progress: WarmupProgress) => void;
  /** Aborting ends running compilers; the warm-up then rejects with the signal's reason. */
  readonly signal?: AbortSignal;
}

/** Runs operations on one kind of hardware. */
export interface Device extends Disposable {
  readonly backend: BackendName;
  /** One line for logs: backend, ISA, threads, compiler. */
  readonly description: string;
  /** The instruction set that kernels are compiled for, of a CPU device. */
  readonly isa?: string;
  readonly threads: number;
  /**
   * Checks the arguments, then computes; outputs are complete on return.
   *
   * @throws the operation's own argument errors; UnsupportedError; StorageError for a disposed
   * tensor; CompileError, CacheError on first use of a kernel; DeviceError after disposal.
   */
  run<A>(operation: Operation<A>, args: A): void;
  /** True, or the reason why this device cannot run it. */
  supports<A>(operation: Operation<A>, args: A): true | string;
  /**
   * Compiles in parallel, and loads, every kernel that `body` would launch. Inside `body`, `run`
   * checks its arguments and takes note of the kernel but computes nothing. `body` must not be
   * asynchronous.
   */
  warmup(body: () => void, options?: WarmupOptions): Promise<void>;
  /**
   * A hint for big tensors that are read as a stream (weights): keep them in huge pages. Best given
   * before the memory is first written. Returns the bytes it took effect on; absent where there is
   * no such thing.
   */
  adviseHuge?(tensor: Tensor): number;
}

export interface DeviceOptions {
  /**
   * `auto` takes `cpu` where a compiler is found, else `reference`, and says so. @default "auto"
   */
  readonly backend?: "auto" | "cpu" | "reference";
  /** 1 to 1024. @default the machine's available parallelism */
  readonly threads?: number;
  /** @default OPEN_INFRA_JIT_CACHE_DIR or ~/.cache/open-infra/jit */
  readonly cacheDir?: string;
  /**
   * Caches looked at after `cacheDir`, never written. @default OPEN_INFRA_JIT_READONLY_CACHE_DIRS
   */
  readonly readonlyCacheDirs?: readonly string[];
  /**
   * Narrower instruction set than the machine's best, e.g. `avx2`. @default OPEN_INFRA_JIT_ISA or
   * the best
   */
  readonly isa?: string;
  readonly recorder?: Recorder;
  /** Told once when `auto` falls back to the reference backend. @default writes to stderr */
  readonly onFallback?: (reason: string) => void;
}
