// The CPU backend: finds the compiled kernel for an operation's arguments, packs the parameters
// into one block, and launches it on a thread pool with a single native call. Compiling and caching
// are in cache.ts; the pool itself is kernels/runtime.c.

import { availableParallelism } from "node:os";
import { nullRecorder, type Recorder } from "@open-infra/profile";
import type { Tensor } from "@open-infra/tensor";
import { KernelCache } from "./cache.ts";
import type { Compiler } from "./compiler.ts";
import type { Device, WarmupOptions } from "./device.ts";
import type { NativeFunction } from "./driver.ts";
import { noteLaunches } from "./dry-run.ts";
import { DeviceError, JitOptionError, UnsupportedError } from "./errors.ts";
import { chooseIsa, featuresOf, scalarTarget, wantsTiles } from "./isa.ts";
import type { IsaTarget } from "./isa-flags.ts";
import type { AnyKernel, KernelConstants, Operation, Target } from "./operation.ts";
import type { JitOptions } from "./options.ts";
import { type PackedValues, type Packer, ParamBlock, pointerOf } from "./param-block.ts";
import { kernelUrl } from "./paths.ts";
import { launchProblem, MAX_THREADS, openRuntime, type Runtime } from "./runtime.ts";
import { expectSanitizerRuntime } from "./sanitize.ts";
import type { KernelSpec } from "./source.ts";

export interface CpuDeviceOptions {
  readonly compiler: Compiler;
  readonly jit: JitOptions;
  readonly threads?: number;
  readonly recorder?: Recorder;
}

interface LoadedKernel {
  readonly address: number;
  readonly pack: Packer;
  readonly name: string;
}

/** A specialisation by its constants. */
interface Specialised {
  readonly constants: KernelConstants;
  readonly loaded: LoadedKernel;
}

/** Specialisations of a kernel that a launch looks through before it names the one it wants. */
const MOST_RECENT = 8;

/** Runs C kernels on this machine's cores; made by `createDevice`. */
export class CpuDevice implements Device {
  readonly backend = "cpu";
  readonly description: string;
  readonly isa: string;
  readonly threads: number;
  readonly #target: Target;
  readonly #cache: KernelCache;
  readonly #runtime: Runtime;
  readonly #recorder: Recorder;
  readonly #launch: NativeFunction;
  readonly #kernels = new Map<string, LoadedKernel>();
  /** What each source was lately launched as, the last one first: models alternate between few. */
  readonly #recent = new WeakMap<object, Specialised[]>();
  readonly #block = new ParamBlock();
  #wanted: Map<string, KernelSpec> | undefined;
  #disposed = false;

  /** @throws CompileError, CacheError, JitOptionError, DeviceError */
  constructor(options: CpuDeviceOptions) {
    const { compiler, jit } = options;
    if (jit.sanitize) expectSanitizerRuntime();
    this.threads = checkThreads(options.threads ?? Math.min(MAX_THREADS, availableParallelism()));
    const isa = detectIsa(compiler, jit);
    this.isa = isa.isa;
    this.#target = { isa: isa.isa, threads: this.threads };
    this.#cache = new KernelCache(compiler, isa, jit);
    this.#recorder = options.recorder ?? nullRecorder;
    this.#runtime = openRuntime(this.#cache, this.threads);
    this.#launch = this.#runtime.launch;
    const name = isa.note === undefined ? isa.isa : `${isa.isa}, ${isa.note}`;
    const plural = this.threads === 1 ? "thread" : "threads";
    this.description = `cpu (${name}, ${this.threads} ${plural}, ${compiler.version})`;
  }

  supports<A>(operation: Operation<A>, args: A): true | string {
    const kernel = operation.kernels.cpu;
    if (kernel === undefined) return `no cpu kernel for ${operation.name}`;
    if (kernel.language !== "c") return `its cpu kernel is written in ${kernel.language}, not C`;
    return operation.unsupported?.(args, "cpu") ?? true;
  }

  run<A>(operation: Operation<A>, args: A): void {
    if (this.#disposed) throw new DeviceError(`${operation.name}: the device was disposed`);
    operation.check(args);
    const reason = this.supports(operation, args);
    if (reason !== true) throw new UnsupportedError(operation.name, this.backend, reason);
    const kernel = operation.kernels.cpu as AnyKernel<A>;
    const loaded = this.#find(operation, kernel, args);
    if (loaded === undefined) return;
    const target = this.#target;
    const plan = kernel.plan?.(args, target);
    const asked = kernel.threads?.(args, target, plan) ?? this.threads;
    const threads = asked >= 1 ? Math.min(this.threads, Math.floor(asked)) : 1;
    const scratch = kernel.scratchBytes?.(args, target, plan) ?? 0;
    const block = this.#block;
    block.integer(0, this.#runtime.pool);
    block.integer(1, loaded.address);
    block.integer(2, threads);
    block.integer(3, scratch);
    loaded.pack(operation.name, kernel.pack(args, target, plan) as PackedValues);
    const recorder = this.#recorder;
    const start = recorder.enabled ? recorder.now() : 0;
    const code = this.#launch(block.words);
    if (code !== 0) throw launchProblem(code, operation.name, threads, scratch);
    if (!recorder.enabled) return;
    const work = operation.work?.(args);
    recorder.span("kernels", operation.name, start, { kernel: loaded.name, ...work });
  }

  async warmup(body: () => void, options: WarmupOptions = {}): Promise<void> {
    if (this.#disposed) throw new DeviceError("warmup: the device was disposed");
    options.signal?.throwIfAborted();
    const wanted = new Map<string, KernelSpec>();
    const outer = this.#wanted;
    this.#wanted = wanted;
    try {
      noteLaunches(body);
    } finally {
      this.#wanted = outer;
    }
    await this.#cache.compileAll([...wanted.values()], options);
    for (const spec of wanted.values()) this.#load(spec);
  }

  adviseHuge(tensor: Tensor): number {
    if (this.#disposed) throw new DeviceError("adviseHuge: the device was disposed");
    const address = pointerOf("adviseHuge", tensor);
    const block = new BigInt64Array([BigInt(address), BigInt(tensor.byteLength)]);
    return tensor.isContiguous ? this.#runtime.adviseHuge(block) : 0;
  }

  [Symbol.dispose](): void {
    if (this.#disposed) return;
    this.#disposed = true;
    this.#runtime[Symbol.dispose]();
  }

  /** The loaded kernel; undefined in a warm-up, which only takes note of it. */
  #find<A>(operation: Operation<A>, kernel: AnyKernel<A>, args: A): LoadedKernel | undefined {
    const constants = kernel.constants(args, this.#target);
    if (this.#wanted === undefined) {
      const known = findRecent(this.#recent.get(kernel), constants);
      if (known !== undefined) return known;
    }
    let key = operation.name;
    for (const name in constants) key += `|${name}=${constants[name]}`;
    const { source, entry, params } = kernel;
    const spec: KernelSpec = { name: key, source, entry, constants, params };
    if (this.#wanted !== undefined) {
      this.#wanted.set(key, spec);
      return undefined;
    }
    const loaded = this.#kernels.get(key) ?? this.#load(spec);
    const others = (this.#recent.get(kernel) ?? []).slice(0, MOST_RECENT - 1);
    this.#recent.set(kernel, [{ constants, loaded }, ...others]);
    return loaded;
  }

  #load(spec: KernelSpec): LoadedKernel {
    const loaded = {
      address: this.#cache.load(spec).address,
      pack: this.#block.packer(spec.name, spec.params),
      name: spec.name,
    };
    this.#kernels.set(spec.name, loaded);
    return loaded;
  }
}

function findRecent(
  recent: Specialised[] | undefined,
  constants: KernelConstants,
): LoadedKernel | undefined {
  if (recent === undefined) return undefined;
  for (let i = 0; i < recent.length; i++) {
    const { constants: known, loaded } = recent[i] as Specialised;
    if (known === constants) return loaded;
  }
  for (let i = 0; i < recent.length; i++) {
    const { constants: known, loaded } = recent[i] as Specialised;
    if (sameConstants(known, constants)) return loaded;
  }
  return undefined;
}

function sameConstants(a: KernelConstants, b: KernelConstants): boolean {
  let count = 0;
  for (const name in b) {
    if (a[name] !== b[name]) return false;
    count++;
  }
  for (const _ in a) count--;
  return count === 0;
}

function checkThreads(threads: number): number {
  if (!Number.isSafeInteger(threads) || threads < 1 || threads > MAX_THREADS) {
    throw new JitOptionError("threads", `${threads}`, `an integer from 1 to ${MAX_THREADS}`);
  }
  return threads;
}

/** Asks the processor by a small compiled function, and chooses. */
export function detectIsa(compiler: Compiler, jit: JitOptions): IsaTarget {
  const probe = new KernelCache(compiler, scalarTarget, { ...jit, dumpAsm: false }).load({
    name: "isa_probe",
    source: kernelUrl("isa_probe.c"),
    entry: "oi_isa_probe",
    constants: {},
    params: {},
  });
  const asked = new BigInt64Array([wantsTiles(jit.isa) ? 1n : 0n]);
  const features = featuresOf(probe.library.func("oi_isa_probe")(asked));
  return chooseIsa(compiler, features, jit.isa);
}
