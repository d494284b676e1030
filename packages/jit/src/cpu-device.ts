// The CPU backend: finds the compiled kernel for an operation's arguments, packs the parameters
// into one block, and launches it on a thread pool with a single native call. Compiling and caching
// are in compiler.ts and cache.ts; the pool itself is kernels/runtime.c.

import { availableParallelism } from "node:os";
import { nullRecorder, type Recorder } from "@open-infra/profile";
import { HostStorage, StorageError, type Tensor } from "@open-infra/tensor";
import { type Compiler, KernelCache, type KernelSpec, targetIsa } from "./compiler.ts";
import type { Device, DeviceOptions, WarmupOptions } from "./device.ts";
import { UnsupportedError } from "./device.ts";
import { addressOf, type NativeFunction } from "./driver.ts";
import type { AnyKernel, Operation, ParamLayout, Target } from "./operation.ts";
import { openRuntime, type Runtime } from "./runtime.ts";

const HEADER_WORDS = 4;
const MAX_PARAMS = 64;

interface LoadedKernel {
  readonly address: number;
  readonly fields: readonly [string, "ptr" | "i64" | "f64"][];
  readonly name: string;
}

export class CpuDevice implements Device {
  readonly backend = "cpu";
  readonly description: string;
  readonly threads: number;
  readonly #target: Target;
  readonly #cache: KernelCache;
  readonly #runtime: Runtime;
  readonly #recorder: Recorder;
  readonly #launch: NativeFunction;
  readonly #kernels = new Map<string, LoadedKernel>();
  readonly #block = new Float64Array(HEADER_WORDS + MAX_PARAMS);
  readonly #words = new Int32Array(this.#block.buffer);
  #wanted: Map<string, KernelSpec> | undefined;

  constructor(compiler: Compiler, options: DeviceOptions) {
    this.threads = Math.max(1, options.threads ?? availableParallelism());
    this.#target = { isa: options.isa ?? targetIsa(compiler), threads: this.threads };
    this.#cache = new KernelCache(compiler, this.#target.isa, options.cacheDir);
    this.#recorder = options.recorder ?? nullRecorder;
    this.#runtime = openRuntime(this.#cache, this.threads);
    this.#launch = this.#runtime.launch;
    this.description = `cpu (${this.#target.isa}, ${this.threads} threads, ${compiler.version})`;
  }

  supports<A>(operation: Operation<A>, args: A): true | string {
    const kernel = operation.kernels.cpu;
    if (kernel === undefined) return `no cpu kernel for ${operation.name}`;
    return operation.unsupported?.(args, "cpu") ?? true;
  }

  run<A>(operation: Operation<A>, args: A): void {
    operation.check(args);
    const reason = this.supports(operation, args);
    if (reason !== true) throw new UnsupportedError(operation.name, this.backend, reason);
    const kernel = operation.kernels.cpu as AnyKernel<A>;
    const loaded = this.#load(operation, kernel, args);
    if (loaded === undefined) return;
    this.#pack(loaded, kernel, args);
    if (!this.#recorder.enabled) {
      this.#launch(this.#block);
      return;
    }
    const start = this.#recorder.now();
    this.#launch(this.#block);
    const work = operation.work?.(args);
    this.#recorder.span("kernels", operation.name, start, { kernel: loaded.name, ...work });
  }

  async warmup(body: () => void, options: WarmupOptions = {}): Promise<void> {
    const wanted = new Map<string, KernelSpec>();
    this.#wanted = wanted;
    try {
      body();
    } finally {
      this.#wanted = undefined;
    }
    await this.#cache.compileAll([...wanted.values()], options);
  }

  [Symbol.dispose](): void {
    this.#runtime[Symbol.dispose]();
  }

  #load<A>(operation: Operation<A>, kernel: AnyKernel<A>, args: A): LoadedKernel | undefined {
    const constants = kernel.constants(args, this.#target);
    let key = operation.name;
    for (const name in constants) key += `|${name}=${constants[name]}`;
    const known = this.#kernels.get(key);
    if (known !== undefined && this.#wanted === undefined) return known;
    const spec = {
      name: key,
      source: kernel.source,
      entry: kernel.entry,
      constants,
      params: kernel.params,
    };
    if (this.#wanted !== undefined) {
      this.#wanted.set(key, spec);
      return undefined;
    }
    const loaded = {
      address: this.#cache.load(spec).address,
      fields: Object.entries(kernel.params as ParamLayout),
      name: key,
    };
    this.#kernels.set(key, loaded);
    return loaded;
  }

  #pack<A>(loaded: LoadedKernel, kernel: AnyKernel<A>, args: A): void {
    const target = this.#target;
    const threads = Math.min(this.threads, kernel.threads?.(args, target) ?? this.threads);
    this.#integer(0, this.#runtime.pool);
    this.#integer(1, loaded.address);
    this.#integer(2, threads);
    this.#integer(3, kernel.scratchBytes?.(args, target) ?? 0);
    const values = kernel.pack(args, target) as Record<string, Tensor | number | null>;
    let word = HEADER_WORDS;
    for (const [name, kind] of loaded.fields) {
      const value = values[name];
      if (kind === "f64") this.#block[word] = value as number;
      else if (kind === "i64") this.#integer(word, value as number);
      else this.#integer(word, value === null ? 0 : pointerOf(value as Tensor));
      word++;
    }
  }

  /** Writes a signed integer below 2^53 as 64 bits without making a BigInt. */
  #integer(word: number, value: number): void {
    this.#words[word * 2] = value | 0;
    if (value >= -0x80000000 && value <= 0x7fffffff) this.#words[word * 2 + 1] = value >> 31;
    else {
      const high = Math.floor(value / 0x100000000);
      this.#words[word * 2] = (value - high * 0x100000000) | 0;
      this.#words[word * 2 + 1] = high;
    }
  }
}

/** Native address of a host tensor's first element. */
function pointerOf(tensor: Tensor): number {
  const { storage } = tensor;
  if (!(storage instanceof HostStorage)) {
    throw new StorageError(`${tensor.describe()} is not in host memory`);
  }
  if (storage.address === 0) storage.address = addressOf(storage.bytes);
  return storage.address + tensor.byteOffset;
}
