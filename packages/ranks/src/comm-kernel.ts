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
  /** At most 64. */
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

const paramsMax = 64;

/** Compiled kernels of one rank, by kernel and constants. */
export class CommKernels {
  readonly #native: RanksNative;
  readonly #loaded = new WeakMap<CommKernel, Map<string, NativeCode>>();
  readonly #fields = new WeakMap<CommKernel, readonly (readonly [string, string])[]>();

  constructor(native: RanksNative) {
    this.#native = native;
  }

  /** Compiles and loads, or finds. @throws CompileError */
  load(kernel: CommKernel, constants: KernelConstants): NativeCode {
    let byConstants = this.#loaded.get(kernel);
    if (byConstants === undefined) {
      byConstants = new Map();
      this.#loaded.set(kernel, byConstants);
    }
    let key = "";
    for (const name in constants) key += `|${name}=${constants[name]}`;
    let code = byConstants.get(key);
    if (code === undefined) {
      const { source, entry, params } = kernel;
      const name = `${kernel.name}${key}`;
      const spec = { name, source, entry, constants, params, headers: ranksHeaders };
      code = this.#native.toolchain.load(spec);
      this.#native.invoke("oi_keep_kernel", code.address);
      byConstants.set(key, code);
    }
    return code;
  }

  /**
   * Writes the parameters into the native block, from word `first` on. Returns the word after them.
   *
   * @throws InputError naming the parameter
   */
  pack<L extends ParamLayout>(kernel: CommKernel<L>, values: CommValues<L>, first: number): number {
    const fields = this.#fieldsOf(kernel as unknown as CommKernel);
    for (let i = 0; i < fields.length; i++) {
      const [name, kind] = fields[i] as readonly [string, string];
      const value = (values as Record<string, unknown>)[name];
      if (kind === "ptr") this.#native.word(first + i, addressIn(kernel.name, name, value));
      else if (typeof value !== "number") throw wrong(kernel.name, name, value, "a number");
      else if (kind === "f64") this.#native.block[first + i] = value;
      else if (Number.isSafeInteger(value)) this.#native.word(first + i, value);
      else throw wrong(kernel.name, name, value, "an integer");
    }
    return first + fields.length;
  }

  #fieldsOf(kernel: CommKernel): readonly (readonly [string, string])[] {
    let fields = this.#fields.get(kernel);
    if (fields === undefined) {
      fields = Object.entries(kernel.params);
      if (fields.length > paramsMax) {
        const allowed = `at most ${paramsMax} parameters`;
        throw new InputError(kernel.name, `${fields.length} parameters`, allowed);
      }
      this.#fields.set(kernel, fields);
    }
    return fields;
  }
}

function addressIn(kernel: string, name: string, value: unknown): number {
  if (value === null) return 0;
  if (value instanceof Tensor) return pointerOf(`${kernel}: ${name}`, value);
  const address = typeof value === "number" ? value : (value as Addressed | undefined)?.address;
  if (typeof address === "number" && Number.isSafeInteger(address)) return address;
  throw wrong(kernel, name, value, "a tensor, a window, an address or null");
}

function wrong(kernel: string, name: string, value: unknown, allowed: string): InputError {
  return new InputError(`${kernel}: ${name}`, String(value), allowed);
}
