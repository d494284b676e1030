// A communication kernel: C that puts, signals and waits on windows (kernels/include/oi_ranks.h),
// compiled for its constants and launched on a rank's threads. Unlike an operation of a Device it
// has no result of its own but what happens between ranks.

import { InputError } from "@open-infra/errors";
import {
  type KernelConstants,
  type NativeCode,
  type ParamLayout,
  pointerOf,
} from "@open-infra/jit";
import { Tensor } from "@open-infra/tensor";
import { type RanksNative, ranksHeaders } from "./native.ts";

/** A communication kernel in source form. */
export interface CommKernel<L extends ParamLayout = ParamLayout> {
  /** For errors and traces: `dispatch`. */
  readonly name: string;
  readonly source: URL;
  /** `void entry(const params_t *p, oi_ctx *ctx)`. */
  readonly entry: string;
  readonly params: L;
}

/** Something with a native address: a Window, or memory of one's own. */
export interface Addressed {
  readonly address: number;
}

/** A value for each parameter; a `ptr` takes a tensor, a window, an address or null. */
export type CommValues<L extends ParamLayout> = {
  readonly [K in keyof L]: L[K] extends "ptr" ? Tensor | Addressed | number | null : number;
};

/** Keeps the layout's types. */
export function defineCommKernel<const L extends ParamLayout>(
  kernel: CommKernel<L>,
): CommKernel<L> {
  return kernel;
}

const headerWords = 4;

/** Compiled kernels of one rank, by kernel and constants. */
export class CommKernels {
  readonly #native: RanksNative;
  readonly #loaded = new Map<string, NativeCode>();
  readonly #scalar = new DataView(new ArrayBuffer(8));

  constructor(native: RanksNative) {
    this.#native = native;
  }

  /** Compiles and loads, or finds. @throws CompileError */
  load(kernel: CommKernel, constants: KernelConstants): NativeCode {
    let name = kernel.name;
    for (const key in constants) name += `|${key}=${constants[key]}`;
    const key = `${kernel.source.href}|${kernel.entry}|${name}`;
    let code = this.#loaded.get(key);
    if (code === undefined) {
      const { source, entry, params } = kernel;
      code = this.#native.toolchain.load({
        name,
        source,
        entry,
        constants,
        params,
        headers: ranksHeaders,
      });
      this.#loaded.set(key, code);
    }
    return code;
  }

  /** The block of a launch: pool, entry, threads, scratch bytes, parameters. */
  pack<L extends ParamLayout>(
    kernel: CommKernel<L>,
    values: CommValues<L>,
    launch: { pool: number; entry: number; threads: number; scratchBytes: number },
    room: number,
  ): BigInt64Array {
    const names = Object.keys(kernel.params);
    const block = new BigInt64Array(room + headerWords + names.length);
    block[room] = BigInt(launch.pool);
    block[room + 1] = BigInt(launch.entry);
    block[room + 2] = BigInt(launch.threads);
    block[room + 3] = BigInt(launch.scratchBytes);
    names.forEach((name, i) => {
      const kind = kernel.params[name] as "ptr" | "i64" | "f64";
      const value = (values as Record<string, unknown>)[name];
      block[room + headerWords + i] = this.#word(`${kernel.name}: ${name}`, kind, value);
    });
    return block;
  }

  #word(what: string, kind: "ptr" | "i64" | "f64", value: unknown): bigint {
    if (kind === "ptr") {
      if (value === null) return 0n;
      if (value instanceof Tensor) return BigInt(pointerOf(what, value));
      if (typeof value === "number") return BigInt(value);
      const address = (value as Addressed | undefined)?.address;
      if (typeof address === "number") return BigInt(address);
      throw new InputError(what, String(value), "a tensor, a window, an address or null");
    }
    if (typeof value !== "number") throw new InputError(what, String(value), "a number");
    if (kind === "f64") {
      this.#scalar.setFloat64(0, value);
      return this.#scalar.getBigInt64(0);
    }
    if (!Number.isSafeInteger(value)) throw new InputError(what, `${value}`, "an integer");
    return BigInt(value);
  }
}
