// Casts between float matrices and e4m3 with block scales, with the original's arithmetic to the
// byte. Products of the results are in gemm.ts.

import { type Device, defineKernel, type Operation, pointerOf } from "@open-infra/jit";
import {
  byteSize,
  type DType,
  dtypeBits,
  encodeInto,
  expectRows,
  expectTensor,
  Tensor,
} from "@open-infra/tensor";
import { ArgumentError } from "./errors.ts";
import { fp8ScaleOf } from "./fp8-scale.ts";
import { SCALE_BLOCK, type ScaledTensor } from "./operand.ts";
import { storeMatrix } from "./reference.ts";
import { packUe8m0ToInt } from "./ue8m0.ts";

interface CastCall {
  readonly operation: string;
  /** [M,K]; the source of a cast, the result of a cast back. */
  readonly x: Tensor;
  readonly scaled: ScaledTensor;
  readonly granM: number;
  readonly granK: number;
  readonly useUe8m0: boolean;
}

const floats: readonly DType[] = ["f32", "bf16", "f16"];

function expectGranularity(operation: string, granM: number, granK: number): void {
  for (const [name, gran] of [["granM", granM] as const, ["granK", granK] as const]) {
    if (!Number.isSafeInteger(gran) || gran < 1) {
      throw new ArgumentError(operation, name, `${gran}`, "a positive integer");
    }
  }
}

function checkCast({ operation, x, scaled, granM, granK }: CastCall): void {
  expectGranularity(operation, granM, granK);
  const dims = {};
  expectTensor(operation, "x", x, floats, ["M", "K"], dims);
  expectRows(operation, "x", x);
  expectTensor(operation, "data", scaled.data, ["e4m3fn"], ["M", "K"], dims);
  expectRows(operation, "data", scaled.data);
  const blocks = [Math.ceil(x.dim(0) / granM), Math.ceil(x.dim(1) / granK)];
  expectTensor(operation, "scales", scaled.scales, ["f32"], blocks, {});
}

function castReference({ x, scaled, granM, granK, useUe8m0 }: CastCall): void {
  const [m, k] = [x.dim(0), x.dim(1)];
  const columns = Math.ceil(k / granK);
  const blockOf = (i: number): number =>
    Math.floor(Math.floor(i / k) / granM) * columns + Math.floor((i % k) / granK);
  const values = x.toFloat64();
  const amax = new Float64Array(Math.ceil(m / granM) * columns);
  for (let i = 0; i < values.length; i++) {
    // Math.max keeps a NaN, so a block with one gets a NaN scale.
    amax[blockOf(i)] = Math.max(amax[blockOf(i)] as number, Math.abs(values[i] as number));
  }
  const scales = amax.map((a) => fp8ScaleOf(a, useUe8m0));
  for (let i = 0; i < values.length; i++) {
    const inverse = Math.fround(1 / (scales[blockOf(i)] as number));
    values[i] = Math.fround((values[i] as number) * inverse);
  }
  storeMatrix(scaled.data, values);
  storeScales(scaled.scales, scales);
}

/** Scales may lie column by column, so they are written one at a time. */
function storeScales(tensor: Tensor, scales: Float64Array): void {
  const columns = tensor.dim(1);
  for (let i = 0; i < scales.length; i++) {
    const one = tensor.select(0, Math.floor(i / columns)).slice(0, i % columns, (i % columns) + 1);
    encodeInto("f32", scales.subarray(i, i + 1), one.raw());
  }
}

function castBackReference({ x, scaled, granM, granK }: CastCall): void {
  const k = x.dim(1);
  const scales = scaled.scales.toFloat64();
  const columns = scaled.scales.dim(1);
  const values = scaled.data.toFloat64().map((code, i) => {
    const row = Math.floor(Math.floor(i / k) / granM);
    return code * (scales[row * columns + Math.floor((i % k) / granK)] as number);
  });
  storeMatrix(x, values);
}

/** Below this many elements a thread, waking it costs more than it saves. */
export const elementsPerThread = 32768;

/** Codes beyond this do not stay in caches until someone reads them. */
const streamedBytes = 8 << 20;

/** Whether a cast writes its codes past the caches: a third less traffic where they are many. */
export function streams(codes: Tensor): boolean {
  return codes.byteLength >= streamedBytes;
}

/** Bytes that are written past the caches together. */
const lineBytes = 64;

/** New codes; so many that they are streamed begin on a line, or else no store could fill one. */
export function emptyCodes<D extends DType>(
  shape: readonly number[],
  dtype: D,
  name: string | undefined,
): Tensor<D> {
  const size = shape.reduce((x, y) => x * y, 1);
  if (byteSize(dtype, size) < streamedBytes) return Tensor.empty(shape, dtype, name);
  const perLine = (8 * lineBytes) / dtypeBits[dtype];
  const wide = Tensor.empty([size + perLine], dtype, name);
  const beyond = pointerOf("emptyCodes", wide) % lineBytes;
  const offset = (((lineBytes - beyond) % lineBytes) * 8) / dtypeBits[dtype];
  return new Tensor({ dtype, shape, storage: wide.storage, offset, name });
}

function castKernel(entry: "cast_to_fp8" | "cast_from_fp8") {
  return defineKernel({
    language: "c",
    source: new URL("../kernels/cast.c", import.meta.url),
    entry,
    params: {
      x: "ptr",
      data: "ptr",
      scales: "ptr",
      m: "i64",
      k: "i64",
      ldx: "i64",
      ldq: "i64",
      s_m: "i64",
      s_k: "i64",
      gran_m: "i64",
      gran_k: "i64",
      ue8m0: "i64",
      stream: "i64",
    },
    constants: ({ x }: CastCall) => ({ X_TYPE: floats.indexOf(x.dtype) }),
    pack: ({ x, scaled, granM, granK, useUe8m0 }) => ({
      x,
      data: scaled.data,
      scales: scaled.scales,
      m: x.dim(0),
      k: x.dim(1),
      ldx: x.stride(0),
      ldq: scaled.data.stride(0),
      s_m: scaled.scales.stride(0),
      s_k: scaled.scales.stride(1),
      gran_m: granM,
      gran_k: granK,
      ue8m0: useUe8m0 ? 1 : 0,
      stream: streams(scaled.data) ? 1 : 0,
    }),
    threads: ({ x }) => Math.max(1, Math.floor(x.size / elementsPerThread)),
  });
}

const toFp8: Operation<CastCall> = {
  name: "castToFp8",
  check: checkCast,
  reference: castReference,
  kernels: { cpu: castKernel("cast_to_fp8") },
  work: ({ x }) => ({ flops: 2 * x.size, bytes: x.byteLength + x.size }),
};

const fromFp8: Operation<CastCall> = {
  name: "castBackFromFp8",
  check: checkCast,
  reference: castBackReference,
  kernels: { cpu: castKernel("cast_from_fp8") },
  work: ({ x }) => ({ flops: x.size, bytes: x.byteLength + x.size }),
};

/** A new pair for an [M,K] matrix with a scale per granM × granK block. */
function emptyScaled(x: Tensor, granM: number, granK: number): ScaledTensor {
  const [m, k] = [x.dim(0), x.dim(1)];
  return {
    data: emptyCodes([m, k], "e4m3fn", x.name),
    scales: Tensor.empty([Math.ceil(m / granM), Math.ceil(k / granK)], "f32"),
  };
}

export interface CastToFp8Options {
  /** [M,K] f32, bf16 or f16; rows may be apart. */
  readonly x: Tensor;
  /** Scales rounded up to powers of two. @default false */
  readonly useUe8m0?: boolean | undefined;
  /** Written instead of new tensors. */
  readonly out?: ScaledTensor | undefined;
}

/** Casts with a scale per granM × granK block; the public functions name their blocks. */
export function castToFp8(
  device: Device,
  operation: string,
  { x, useUe8m0, out }: CastToFp8Options,
  granM: number,
  granK: number,
): ScaledTensor {
  expectGranularity(operation, granM, granK);
  if (out === undefined) expectTensor(operation, "x", x, floats, ["M", "K"], {});
  const scaled = out ?? emptyScaled(x, granM, granK);
  device.run(toFp8, { operation, x, scaled, granM, granK, useUe8m0: useUe8m0 ?? false });
  return scaled;
}

/** Options of {@link perTokenCastToFp8}. */
export interface TokenCastOptions extends CastToFp8Options {
  /** Columns that share a scale. @default 128 */
  readonly granK?: number | undefined;
  /** Scales as ue8m0, four to an i32 [M, ceil(K/granK/4)]; needs `useUe8m0`. @default false */
  readonly usePackedUe8m0?: boolean | undefined;
}

/**
 * e4m3 codes with one scale per row and `granK` columns: data [M,K], scales f32 [M, ceil(K/granK)]
 * (DeepGEMM `per_token_cast_to_fp8`). A block with a NaN becomes all NaN.
 *
 * @throws DTypeError, ShapeError, ArgumentError
 */
export function perTokenCastToFp8(device: Device, options: TokenCastOptions): ScaledTensor {
  const operation = "perTokenCastToFp8";
  const { granK = SCALE_BLOCK, usePackedUe8m0 = false } = options;
  if (usePackedUe8m0 && options.useUe8m0 !== true) {
    throw new ArgumentError(operation, "usePackedUe8m0", "true", "false without useUe8m0");
  }
  if (usePackedUe8m0 && options.out !== undefined) {
    throw new ArgumentError(operation, "out", "given", "nothing: packed scales are new tensors");
  }
  const scaled = castToFp8(device, operation, options, 1, granK);
  return usePackedUe8m0 ? { data: scaled.data, scales: packUe8m0ToInt(scaled.scales) } : scaled;
}

/**
 * e4m3 codes with one scale per 128 × 128 block, as weights have: data [N,K], scales f32
 * [ceil(N/128), ceil(K/128)] (DeepGEMM `per_block_cast_to_fp8`).
 */
export function perBlockCastToFp8(device: Device, options: CastToFp8Options): ScaledTensor {
  return castToFp8(device, "perBlockCastToFp8", options, SCALE_BLOCK, SCALE_BLOCK);
}

export interface CastBackFromFp8Options {
  readonly x: ScaledTensor;
  /** Rows that share a scale: 1 after a per-token cast, 128 after a per-block one. */
  readonly granM: number;
  /** @default 128 */
  readonly granK?: number | undefined;
  /** [M,K] f32, bf16 or f16, written instead of a new f32 tensor. */
  readonly out?: Tensor | undefined;
}

/** code · scale of every element. */
export function castBackFromFp8(device: Device, options: CastBackFromFp8Options): Tensor {
  const { x: scaled, granM, out } = options;
  const granK = options.granK ?? SCALE_BLOCK;
  const operation = "castBackFromFp8";
  if (out === undefined) expectTensor(operation, "x.data", scaled.data, ["e4m3fn"], ["M", "K"], {});
  const x = out ?? Tensor.empty(scaled.data.shape, "f32", scaled.data.name);
  device.run(fromFp8, { operation, x, scaled, granM, granK, useUe8m0: false });
  return x;
}
