// Packed ue8m0 scales, four to an int32 along K, as operands of products: they are spread into
// float32 before the product, which costs a few bytes for each 128 codes. Packing is in ue8m0.ts.

import { type Device, defineKernel, type Operation } from "@open-infra/jit";
import { ShapeError, Tensor, ue8m0ToNumber } from "@open-infra/tensor";
import { ArgumentError } from "./errors.ts";
import type { ScaledTensor } from "./operand.ts";
import { SCALES_PER_INT } from "./ue8m0.ts";

interface UnpackCall {
  /** i32 [..., rows, words], any strides of the last two, one or two dimensions before. */
  readonly packed: Tensor;
  /** f32 [..., rows, Σ counts] */
  readonly out: Tensor;
  /** i32: scales of each group along K. */
  readonly counts: Tensor;
}

/** Slabs and rows of packed scales, and the strides between them. */
function placesOf(packed: Tensor): { slabs: number; rows: number; slab: number; row: number } {
  const batched = packed.rank === 3;
  return {
    slabs: batched ? packed.dim(0) : 1,
    rows: packed.dim(-2),
    slab: batched ? packed.stride(0) : 0,
    row: packed.stride(-2),
  };
}

function unpackReference({ packed, out, counts }: UnpackCall): void {
  const words = packed.contiguous().raw() as Int32Array;
  const [width, columns] = [packed.dim(-1), out.dim(-1)];
  const to = out.raw();
  const { slabs, rows } = placesOf(packed);
  for (let row = 0; row < slabs * rows; row++) {
    let [word, column] = [row * width, row * columns];
    for (const count of counts.raw() as Int32Array) {
      for (let i = 0; i < count; i++) {
        const code = ((words[word + (i >> 2)] as number) >>> (8 * (i & 3))) & 0xff;
        to[column++] = ue8m0ToNumber(code);
      }
      word += Math.ceil(count / SCALES_PER_INT);
    }
  }
}

/** Below this many scales a thread, waking it costs more than it saves. */
const scalesPerThread = 16384;

const unpackOperation: Operation<UnpackCall> = {
  name: "unpackUe8m0Scales",
  check: () => {},
  reference: unpackReference,
  kernels: {
    cpu: defineKernel({
      language: "c",
      source: new URL("../kernels/unpack_scales.c", import.meta.url),
      entry: "unpack_scales",
      params: {
        packed: "ptr",
        out: "ptr",
        counts: "ptr",
        groups: "i64",
        slabs: "i64",
        rows: "i64",
        columns: "i64",
        p_slab: "i64",
        p_row: "i64",
        p_k: "i64",
      },
      constants: () => ({}),
      pack({ packed, out, counts }: UnpackCall) {
        const { slabs, rows, slab, row } = placesOf(packed);
        return {
          packed,
          out,
          counts,
          groups: counts.size,
          slabs,
          rows,
          columns: out.dim(-1),
          p_slab: slab,
          p_row: row,
          p_k: packed.stride(-1),
        };
      },
      threads: ({ out }) => Math.max(1, Math.floor(out.size / scalesPerThread)),
    }),
  },
  work: ({ packed, out }) => ({ flops: 0, bytes: packed.byteLength + out.byteLength }),
};

/** Whether an operand's scales are packed ue8m0. */
export function isPacked(operand: { readonly scales: Tensor }): boolean {
  return operand.scales.dtype === "i32";
}

/** How the scales of an operand lie along K. */
export interface PackedLayout {
  /** Elements along K that share a scale. */
  readonly granK: number;
  /** Elements along K of each group, whose scales are packed apart. */
  readonly sizes: readonly number[];
}

/**
 * The operand with float32 scales; as it is if they are that already.
 *
 * @throws ShapeError for another number of packed scales along K than the layout has.
 */
export function withFloatScales(
  device: Device,
  operation: string,
  argument: "a" | "b",
  { data, scales }: ScaledTensor,
  { granK, sizes }: PackedLayout,
): ScaledTensor {
  if (!isPacked({ scales })) return { data, scales };
  const counts = sizes.map((size) => Math.ceil(size / granK));
  const words = counts.reduce((sum, n) => sum + Math.ceil(n / SCALES_PER_INT), 0);
  const name = `${argument}.scales`;
  if (scales.rank < 2 || scales.rank > 3) {
    throw new ShapeError(operation, name, `[${scales.shape}]`, "[rows, int32 along K], or a stack");
  }
  if (scales.dim(-1) !== words) {
    const groups = sizes.length === 1 ? "" : ` in ${sizes.length} groups`;
    const allowed = `${words} int32 along K: a scale each ${granK}${groups}, four to an int32`;
    throw new ShapeError(operation, name, `[${scales.shape}]`, allowed);
  }
  const total = counts.reduce((sum, n) => sum + n, 0);
  const out = Tensor.empty([...scales.shape.slice(0, -1), total], "f32", scales.name);
  const places = Tensor.from(counts, [counts.length], "i32");
  device.run(unpackOperation, { packed: scales, out, counts: places });
  return { data, scales: out };
}

/** Sizes of groups along K that a layout can be made of. @throws ArgumentError */
export function expectSizes(operation: string, name: string, sizes: readonly number[]): void {
  sizes.forEach((size, g) => {
    if (size >= 0) return;
    throw new ArgumentError(operation, `${name}[${g}]`, `${size}`, "0 or more");
  });
}
