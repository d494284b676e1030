// The buffers of an operation, checked on this rank before anything is sent, and where peers find
// them.

import { InputError } from "@open-infra/errors";
import { pointerOf } from "@open-infra/jit";
import { type DType, dtypeBits, type Tensor } from "@open-infra/tensor";

/** One buffer, or one for each device of this rank. */
export type Devices = Tensor | readonly Tensor[];

/** Memory of this rank that all peers can reach. */
export interface Registered {
  /** Number of the window in headers, from 1. */
  readonly window: number;
  readonly address: number;
  readonly bytes: number;
}

/** Checked buffers of one side. */
export interface Operand {
  readonly tensors: readonly Tensor[];
  readonly dtype: DType;
  /** Elements of each. */
  readonly size: number;
}

/** @throws InputError naming the device whose buffer does not fit. */
export function checkOperand(what: string, devices: Devices, maxDevices: number): Operand {
  const tensors: readonly Tensor[] = Array.isArray(devices) ? devices : [devices as Tensor];
  const [first] = tensors;
  if (first === undefined || tensors.length > maxDevices) {
    throw new InputError(what, `${tensors.length} devices`, `1 to ${maxDevices}, as maxDevices`);
  }
  tensors.forEach((tensor, i) => {
    const name = tensors.length === 1 ? what : `${what}[${i}]`;
    if (tensor.dtype !== first.dtype || tensor.size !== first.size) {
      const allowed = `${first.size} elements of ${first.dtype}, as ${what}[0] has`;
      throw new InputError(name, tensor.describe(), allowed);
    }
    if (!tensor.isContiguous) throw new InputError(name, tensor.describe(), "a contiguous tensor");
  });
  if (dtypeBits[first.dtype] < 8 && first.size % 2 !== 0) {
    throw new InputError(what, first.describe(), "an even number of elements, two to a byte");
  }
  return { tensors, dtype: first.dtype, size: first.size };
}

/** The same buffer, or apart: anything else would be read after it was written. */
export function checkApart(
  sources: Operand,
  outs: Operand,
  place: (device: number) => number | undefined,
): void {
  for (const [i, source] of sources.tensors.entries()) {
    const from = addressOfTensor(source);
    for (const [j, out] of outs.tensors.entries()) {
      const to = addressOfTensor(out);
      const apart = from + source.byteLength <= to || to + out.byteLength <= from;
      if (apart || (i === j && to - from === place(i))) continue;
      const got = `${out.describe()} over part of the source`;
      throw new InputError(`out[${j}]`, got, "the source itself, or memory apart from it");
    }
  }
}

/** A tensor's native address; 0 if it is empty. */
export function addressOfTensor(tensor: Tensor): number {
  return tensor.byteLength === 0 ? 0 : pointerOf("hfreduce", tensor);
}

/** Two words that tell peers where a buffer is: hf_buffer of kernels/hfreduce_op.h. */
export function bufferWords(
  tensor: Tensor | undefined,
  registered: readonly Registered[],
): readonly [number, number] {
  if (tensor === undefined) return [-1, 0];
  const at = addressOfTensor(tensor);
  for (const { window, address, bytes } of registered) {
    if (at >= address && at + tensor.byteLength <= address + bytes) return [window, at - address];
  }
  return [0, at];
}
