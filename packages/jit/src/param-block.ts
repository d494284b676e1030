// The block of packed arguments that one native call takes: 64-bit words, the launch's own first. A
// kernel's layout is compiled to a packer once, because looking up some forty values by name costs
// more than all else a launch does.

import { HostStorage, StorageError, Tensor } from "@open-infra/tensor";
import { addressOf } from "./driver.ts";
import { DeviceError } from "./errors.ts";
import type { ParamLayout } from "./operation.ts";

/** Words before a kernel's own: pool, function, threads, scratch bytes. */
export const HEADER_WORDS = 4;
const MAX_PARAMS = 64;

/** Parameter values by name, as a kernel's `pack` returns them. */
export type PackedValues = Readonly<Record<string, Tensor | number | null | undefined>>;

/**
 * Writes a kernel's parameters into its block.
 *
 * @throws DeviceError, StorageError naming the parameter.
 */
export type Packer = (operation: string, values: PackedValues) => void;

/** Reused for every launch of a device. */
export class ParamBlock {
  readonly words: Float64Array = new Float64Array(HEADER_WORDS + MAX_PARAMS);
  readonly #halves = new Int32Array(this.words.buffer);
  readonly #packers = new WeakMap<ParamLayout, Packer>();

  /** Writes an integer below 2^53 in magnitude as 64 bits without making a BigInt. */
  integer(word: number, value: number): void {
    writeInteger(this.#halves, 2 * word, value);
  }

  /** The packer of a layout, always the same one. @throws DeviceError for too many parameters. */
  packer(operation: string, layout: ParamLayout): Packer {
    let packer = this.#packers.get(layout);
    if (packer === undefined) {
      const count = Object.keys(layout).length;
      if (count > MAX_PARAMS) {
        const problem = `a kernel takes at most ${MAX_PARAMS} parameters; this one has ${count}`;
        throw new DeviceError(`${operation}: ${problem}`);
      }
      packer = compilePacker(layout, this.words, this.#halves);
      this.#packers.set(layout, packer);
    }
    return packer;
  }
}

function writeInteger(halves: Int32Array, at: number, value: number): void {
  if (value === (value | 0)) {
    halves[at] = value;
    halves[at + 1] = value >> 31;
    return;
  }
  const high = Math.floor(value / 0x100000000);
  halves[at] = (value - high * 0x100000000) | 0;
  halves[at + 1] = high;
}

/** Writes one parameter, whatever it is, or refuses it. */
type WriteOne = (operation: string, index: number, value: unknown) => void;

function slowWriter(layout: ParamLayout, words: Float64Array, halves: Int32Array): WriteOne {
  const names = Object.keys(layout);
  const kinds = Object.values(layout);
  return (operation, index, value) => {
    const name = names[index] as string;
    const word = HEADER_WORDS + index;
    if (kinds[index] === "ptr") {
      if (value === null) writeInteger(halves, 2 * word, 0);
      else if (value instanceof Tensor) writeInteger(halves, 2 * word, pointerOf(operation, value));
      else throw wrongKind(operation, name, value, "a tensor or null");
    } else if (typeof value !== "number") {
      throw wrongKind(operation, name, value, "a number");
    } else if (kinds[index] === "f64") {
      words[word] = value;
    } else {
      if (!Number.isSafeInteger(value)) throw wrongKind(operation, name, value, "an integer");
      writeInteger(halves, 2 * word, value);
    }
  };
}

/** What the compiled packer is made from; `address` is 0 for what it cannot say at once. */
type MakePacker = (
  words: Float64Array,
  halves: Int32Array,
  address: (value: unknown) => number,
  slow: WriteOne,
) => Packer;

function compilePacker(layout: ParamLayout, words: Float64Array, halves: Int32Array): Packer {
  const slow = slowWriter(layout, words, halves);
  const source = packerSource(layout);
  let make: MakePacker;
  try {
    make = new Function("words", "halves", "address", "slow", source) as MakePacker;
  } catch {
    // Node may be told to make no code from strings.
    const names = Object.keys(layout);
    return (operation, values) => {
      for (let i = 0; i < names.length; i++) slow(operation, i, values[names[i] as string]);
    };
  }
  return make(words, halves, knownAddress, slow);
}

/** A line a parameter, each with its place in the block; what is unusual goes the slow way. */
function packerSource(layout: ParamLayout): string {
  const lines = Object.entries(layout).map(([name, kind], i) => {
    const word = HEADER_WORDS + i;
    const [low, high] = [2 * word, 2 * word + 1];
    const take = `x = values[${JSON.stringify(name)}];`;
    const otherwise = `else slow(operation, ${i}, x);`;
    if (kind === "f64") {
      return `${take} if (typeof x === "number") words[${word}] = x; ${otherwise}`;
    }
    if (kind === "i64") {
      const write = `halves[${low}] = x; halves[${high}] = x >> 31;`;
      return `${take} if (x === (x | 0)) { ${write} } ${otherwise}`;
    }
    const none = `if (x === null) { halves[${low}] = 0; halves[${high}] = 0; }`;
    const split = `top = Math.floor(at / 0x100000000); halves[${high}] = top;`;
    const write = `${split} halves[${low}] = at - top * 0x100000000;`;
    return `${take} ${none} else if ((at = address(x)) > 0) { ${write} } ${otherwise}`;
  });
  const body = ["let x, at, top;", ...lines].join("\n  ");
  return `"use strict";\nreturn function pack(operation, values) {\n  ${body}\n};`;
}

/** The address of a tensor's first element if it has been asked for before, else 0. */
function knownAddress(value: unknown): number {
  if (!(value instanceof Tensor)) return 0;
  const { storage } = value;
  // Disposal clears the address.
  if (!(storage instanceof HostStorage) || storage.address === 0) return 0;
  return value.offset === 0 ? storage.address : storage.address + value.byteOffset;
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
