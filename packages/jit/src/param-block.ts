// The block of packed arguments that one native call takes: 64-bit words, the launch's own first.

import { HostStorage, StorageError, Tensor } from "@open-infra/tensor";
import { addressOf } from "./driver.ts";
import { DeviceError } from "./errors.ts";
import type { ParamLayout } from "./operation.ts";

/** Words before a kernel's own: pool, function, threads, scratch bytes. */
export const HEADER_WORDS = 4;
const MAX_PARAMS = 64;

/** A kernel's parameters in order, laid out for the loop that runs on every launch. */
export interface ParamFields {
  readonly names: readonly string[];
  readonly kinds: readonly ("ptr" | "i64" | "f64")[];
}

/** Parameter values by name, as a kernel's `pack` returns them. */
export type PackedValues = Readonly<Record<string, Tensor | number | null | undefined>>;

/** Reused for every launch of a device. */
export class ParamBlock {
  readonly words: Float64Array = new Float64Array(HEADER_WORDS + MAX_PARAMS);
  readonly #halves = new Int32Array(this.words.buffer);

  /** Writes an integer below 2^53 in magnitude as 64 bits without making a BigInt. */
  integer(word: number, value: number): void {
    this.#halves[word * 2] = value | 0;
    if (value >= -0x80000000 && value <= 0x7fffffff) this.#halves[word * 2 + 1] = value >> 31;
    else {
      const high = Math.floor(value / 0x100000000);
      this.#halves[word * 2] = (value - high * 0x100000000) | 0;
      this.#halves[word * 2 + 1] = high;
    }
  }

  /** Writes a kernel's parameters. @throws DeviceError, StorageError naming the parameter. */
  params(operation: string, fields: ParamFields, values: PackedValues): void {
    const { names, kinds } = fields;
    for (let i = 0; i < names.length; i++) {
      const name = names[i] as string;
      const kind = kinds[i];
      const value = values[name];
      const word = HEADER_WORDS + i;
      if (kind === "ptr") {
        if (value === null) this.integer(word, 0);
        else if (value instanceof Tensor) this.integer(word, pointerOf(operation, value));
        else throw wrongKind(operation, name, value, "a tensor or null");
      } else if (typeof value !== "number") {
        throw wrongKind(operation, name, value, "a number");
      } else if (kind === "f64") {
        this.words[word] = value;
      } else {
        if (!Number.isSafeInteger(value)) throw wrongKind(operation, name, value, "an integer");
        this.integer(word, value);
      }
    }
  }
}

/** Lays out and checks parameters once. @throws DeviceError if there are too many. */
export function paramFields(operation: string, layout: ParamLayout): ParamFields {
  const names = Object.keys(layout);
  if (names.length > MAX_PARAMS) {
    throw new DeviceError(
      `${operation}: a kernel takes at most ${MAX_PARAMS} parameters; this one has ${names.length}`,
    );
  }
  return { names, kinds: Object.values(layout) };
}

/** Native address of a host tensor's first element. @throws StorageError */
export function pointerOf(operation: string, tensor: Tensor): number {
  const { storage } = tensor;
  if (!(storage instanceof HostStorage)) {
    throw new StorageError(`${operation}: ${tensor.describe()} is not in host memory`);
  }
  if (storage.disposed) {
    throw new StorageError(
      `${operation}: ${tensor.describe()} was used after its memory was disposed`,
    );
  }
  if (storage.address === 0) storage.address = addressOf(storage.bytes);
  return storage.address + tensor.byteOffset;
}

function wrongKind(operation: string, name: string, got: unknown, wanted: string): DeviceError {
  return new DeviceError(`${operation}: parameter ${name} is ${String(got)}; expected ${wanted}`);
}
