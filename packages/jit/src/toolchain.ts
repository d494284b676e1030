// Native code for packages that bring a runtime of their own (communication), rather than
// operations for a device: C in the same form as kernels (constants, parameter block, project
// headers), compiled and cached as they are, and a thread pool that any one native thread may
// launch on. Operations on tensors belong on a Device; this is the level below it.

import { KernelCache } from "./cache.ts";
import { searchCompiler } from "./compiler.ts";
import { detectIsa } from "./cpu-device.ts";
import type { NativeFunction } from "./driver.ts";
import { CompilerMissingError } from "./errors.ts";
import { readJitOptions } from "./options.ts";
import { openRuntime } from "./runtime.ts";
import type { KernelSpec } from "./source.ts";

/** A loaded source. */
export interface NativeCode {
  /** The entry's address, for other native code to call. */
  readonly address: number;
  /** Another function of the source, of signature `int64_t name(void *block)`. */
  func(symbol: string): NativeFunction;
  symbol(symbol: string): number;
}

/** A thread pool; one native thread may launch on it at a time. */
export interface NativePool extends Disposable {
  readonly address: number;
  /** The address of `oi_launch`; its block is pool, entry, threads, scratch bytes, parameters. */
  readonly launch: number;
}

/** How native code is compiled; what is left out comes from the environment, as for a device. */
export interface ToolchainOptions {
  readonly cacheDir?: string;
  readonly isa?: string;
}

/** Compiles, caches and loads C for this machine. */
export class NativeToolchain {
  /** The instruction set in use: `avx512`, `neon`, … */
  readonly isa: string;
  readonly #cache: KernelCache;

  /** @throws CompilerMissingError, CompileError, CacheError, JitOptionError */
  constructor(options: ToolchainOptions = {}) {
    const environment = readJitOptions();
    const { compiler, tried } = searchCompiler(environment);
    if (compiler === undefined) throw new CompilerMissingError(tried);
    const jit = {
      ...environment,
      ...(options.cacheDir !== undefined && { cacheDir: options.cacheDir }),
      ...(options.isa !== undefined && { isa: options.isa }),
    };
    const isa = detectIsa(compiler, jit);
    this.isa = isa.isa;
    this.#cache = new KernelCache(compiler, isa, jit);
  }

  /** Finds or compiles, and loads. @throws CompileError, CacheError */
  load(spec: KernelSpec): NativeCode {
    const { library, address } = this.#cache.load(spec);
    return {
      address,
      func: (symbol) => library.func(symbol),
      symbol: (symbol) => library.symbol(symbol),
    };
  }

  /** Starts a pool. @throws DeviceError if the system does not grant the threads. */
  openPool(threads: number): NativePool {
    const runtime = openRuntime(this.#cache, threads);
    return {
      address: runtime.pool,
      launch: runtime.launchAddress,
      [Symbol.dispose]: () => runtime[Symbol.dispose](),
    };
  }
}
