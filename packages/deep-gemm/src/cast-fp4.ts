// Casts between float matrices and e2m1 with scales along K, byte for byte the original's, and
// packed codes turned. Products of the results are in gemm.ts and deepgemm.ts.

import { type Device, defineKernel, type Operation } from "@open-infra/jit";
import { type DType, expectRows, expectTensor, ShapeError, Tensor } from "@open-infra/tensor";
import { elementsPerThread, emptyCodes, streams } from "./cast.ts";
import { ArgumentError } from "./errors.ts";
import { fp4CodeOf, fp4ScaleOf } from "./fp4-scale.ts";
import { SCALE_BLOCK, type ScaledTensor } from "./operand.ts";
import { storeMatrix } from "./reference.ts";
import { packUe8m0ToInt, unpackUe8m0FromInt } from "./ue8m0.ts";

interface Fp4Call {
  readonly operation: string;
  /** [M,K]; the source of a cast, the result of a cast back. */
  readonly x: Tensor;
  /** e2m1 [M,K], f32 [M, ceil(K/granK)] */
  readonly scaled: ScaledTensor;
  readonly granK: number;
  readonly useUe8m0: boolean;
}

const floats: readonly DType[] = ["f32", "bf16", "f16"];

function expectGranK(operation: string, granK: number): void {
  if (Number.isSafeInteger(granK) && granK > 0 && granK % 2 === 0) return;
  throw new ArgumentError(operation, "granK", `${granK}`, "a positive even number");
}

/** Rows of e2m1 that each begin on a byte, an even number in each. */
function expectPacked(operation: string, argument: string, tensor: Tensor): void {
  expectRows(operation, argument, tensor);
  const even = tensor.dim(1) % 2 === 0 && (tensor.dim(0) <= 1 || tensor.stride(0) % 2 === 0);
  if (tensor.size === 0 || (even && tensor.offset % 2 === 0)) return;
  const got = `[${tensor.shape}] with strides [${tensor.strides}] from element ${tensor.offset}`;
  throw new ShapeError(
    operation,
    argument,
    got,
    "rows of an even number, each on a byte of its own",
  );
}

function checkFp4({ operation, x, scaled, granK }: Fp4Call): void {
  expectGranK(operation, granK);
  const dims = {};
  expectTensor(operation, "x", x, floats, ["M", "K"], dims);
  expectRows(operation, "x", x);
  expectTensor(operation, "data", scaled.data, ["e2m1"], ["M", "K"], dims);
  expectPacked(operation, "data", scaled.data);
  const blocks = [x.dim(0), Math.ceil(x.dim(1) / granK)];
  expectTensor(operation, "scales", scaled.scales, ["f32"], blocks, {});
}

function toFp4Reference({ x, scaled, granK, useUe8m0 }: Fp4Call): void {
  const [m, k] = [x.dim(0), x.dim(1)];
  const values = x.toFloat64();
  for (let i = 0; i < m; i++) {
    const bytes = scaled.data.select(0, i).raw() as Uint8Array;
    const scales = scaled.scales.select(0, i);
    for (let k0 = 0; k0 < k; k0 += granK) {
      const block = values.subarray(i * k + k0, i * k + Math.min(k, k0 + granK));
      // Math.max keeps a NaN, so a block with one gets a NaN scale.
      const scale = fp4ScaleOf(
        block.reduce((a, v) => Math.max(a, Math.abs(v)), 0),
        useUe8m0,
      );
      const inverse = Math.fround(1 / scale);
      (scales.slice(0, k0 / granK, k0 / granK + 1).raw() as Float32Array)[0] = scale;
      for (let j = 0; j < block.length; j += 2) {
        const code = (at: number): number =>
          fp4CodeOf(Math.fround((block[at] as number) * inverse));
        bytes[(k0 + j) / 2] = code(j) | (code(j + 1) << 4);
      }
    }
  }
}

function fromFp4Reference({ x, scaled, granK }: Fp4Call): void {
  const k = x.dim(1);
  const scales = scaled.scales.toFloat64();
  const columns = scaled.scales.dim(1);
  const values = scaled.data
    .toFloat64()
    .map(
      (v, i) => v * (scales[Math.floor(i / k) * columns + Math.floor((i % k) / granK)] as number),
    );
  storeMatrix(x, values);
}

const source = new URL("../kernels/cast_fp4.c", import.meta.url);
const params = {
  x: "ptr",
  data: "ptr",
  scales: "ptr",
  m: "i64",
  k: "i64",
  ldx: "i64",
  ldq: "i64",
  s_m: "i64",
  s_k: "i64",
  gran_k: "i64",
  ue8m0: "i64",
  stream: "i64",
} as const;

function castKernel(entry: "cast_to_fp4" | "cast_from_fp4") {
  return defineKernel({
    language: "c",
    source,
    entry,
    params,
    constants: ({ x }: Fp4Call) => ({ X_TYPE: floats.indexOf(x.dtype) }),
    pack: ({ x, scaled, granK, useUe8m0 }) => ({
      x,
      data: scaled.data,
      scales: scaled.scales,
      m: x.dim(0),
      k: x.dim(1),
      ldx: x.stride(0),
      ldq: scaled.data.stride(0) / 2,
      s_m: scaled.scales.stride(0),
      s_k: scaled.scales.stride(1),
      gran_k: granK,
      ue8m0: useUe8m0 ? 1 : 0,
      stream: streams(scaled.data) ? 1 : 0,
    }),
    threads: ({ x }) => Math.max(1, Math.floor(x.size / elementsPerThread)),
  });
}

const toFp4: Operation<Fp4Call> = {
  name: "castToFp4",
  check: checkFp4,
  reference: toFp4Reference,
  kernels: { cpu: castKernel("cast_to_fp4") },
  work: ({ x }) => ({ flops: 2 * x.size, bytes: x.byteLength + x.size / 2 }),
};

const fromFp4: Operation<Fp4Call> = {
  name: "castBackFromFp4",
  check: checkFp4,
  reference: fromFp4Reference,
  kernels: { cpu: castKernel("cast_from_fp4") },
  work: ({ x }) => ({ flops: x.size, bytes: x.byteLength + x.size / 2 }),
};

/** Options of {@link perTokenCastToFp4}. */
export interface CastToFp4Options {
  /** [M,K] f32, bf16 or f16, K even; rows may be apart. */
  readonly x: Tensor;
  /** Scales rounded up to powers of two. @default false */
  readonly useUe8m0?: boolean | undefined;
  /** Columns that share a scale, even. @default 128 */
  readonly granK?: number | undefined;
  /** Scales as ue8m0, four to an i32 [M, ceil(K/granK/4)]; needs `useUe8m0`. @default false */
  readonly usePackedUe8m0?: boolean | undefined;
  /** Written instead of new tensors; not with `usePackedUe8m0`. */
  readonly out?: ScaledTensor | undefined;
}

/**
 * e2m1 codes with one scale per row and `granK` columns: data [M,K], scales f32 [M, ceil(K/granK)]
 * (DeepGEMM `per_token_cast_to_fp4`). Ties go to the smaller magnitude; there is no negative zero;
 * a block with a NaN gets a NaN scale.
 *
 * @throws DTypeError, ShapeError, ArgumentError
 */
export function perTokenCastToFp4(device: Device, options: CastToFp4Options): ScaledTensor {
  const operation = "perTokenCastToFp4";
  const { x, granK = SCALE_BLOCK, useUe8m0 = false, usePackedUe8m0 = false } = options;
  if (usePackedUe8m0 && !useUe8m0) {
    throw new ArgumentError(operation, "usePackedUe8m0", "true", "false without useUe8m0");
  }
  expectGranK(operation, granK);
  expectTensor(operation, "x", x, floats, ["M", "K"], {});
  if (x.dim(1) % 2 !== 0) {
    throw new ShapeError(operation, "x", `[${x.shape}]`, "an even number of columns");
  }
  if (usePackedUe8m0 && options.out !== undefined) {
    throw new ArgumentError(operation, "out", "given", "nothing: packed scales are new tensors");
  }
  const scaled: ScaledTensor = options.out ?? {
    data: emptyCodes(x.shape, "e2m1", x.name),
    scales: Tensor.empty([x.dim(0), Math.ceil(x.dim(1) / granK)], "f32"),
  };
  device.run(toFp4, { operation, x, scaled, granK, useUe8m0 });
  return usePackedUe8m0 ? { data: scaled.data, scales: packUe8m0ToInt(scaled.scales) } : scaled;
}

/** Options of {@link castBackFromFp4}. */
export interface CastBackFromFp4Options {
  /** e2m1 [M,K] with f32 scales [M, ceil(K/granK)], or packed ones, i32 [M, ceil(K/granK/4)]. */
  readonly x: ScaledTensor;
  /** @default 128 */
  readonly granK?: number | undefined;
  /** [M,K] f32, bf16 or f16, written instead of a new f32 tensor. */
  readonly out?: Tensor | undefined;
}

/** code · scale of every element (DeepGEMM `cast_back_from_fp4`). */
export function castBackFromFp4(device: Device, options: CastBackFromFp4Options): Tensor {
  const operation = "castBackFromFp4";
  const { x: given, granK = SCALE_BLOCK, out } = options;
  expectGranK(operation, granK);
  expectTensor(operation, "x.data", given.data, ["e2m1"], ["M", "K"], {});
  const groups = Math.ceil(given.data.dim(1) / granK);
  const packed = given.scales.dtype === "i32";
  const scales = packed ? unpackUe8m0FromInt(given.scales, groups) : given.scales;
  const x = out ?? Tensor.empty(given.data.shape, "f32", given.data.name);
  const scaled = { data: given.data, scales };
  device.run(fromFp4, { operation, x, scaled, granK, useUe8m0: false });
  return x;
}

interface TurnCall {
  readonly x: Tensor;
  readonly out: Tensor;
}

const turnOperation: Operation<TurnCall> = {
  name: "transposePackedFp4",
  check({ x }) {
    expectTensor("transposePackedFp4", "x", x, ["e2m1"], ["M", "K"], {});
    expectPacked("transposePackedFp4", "x", x);
  },
  reference({ x, out }) {
    out.copyFrom(x.transpose(0, 1));
  },
  kernels: {
    cpu: defineKernel({
      language: "c",
      source,
      entry: "transpose_fp4",
      params,
      constants: () => ({ X_TYPE: 0 }),
      pack: ({ x, out }: TurnCall) => ({
        x: out,
        data: x,
        scales: null,
        m: x.dim(0),
        k: x.dim(1),
        ldx: out.stride(0) / 2,
        ldq: x.stride(0) / 2,
        s_m: 0,
        s_k: 0,
        gran_k: 1,
        ue8m0: 0,
        stream: 0,
      }),
      threads: ({ x }) => Math.max(1, Math.floor(x.size / elementsPerThread)),
    }),
  },
  work: ({ x }) => ({ flops: 0, bytes: x.size }),
};

/**
 * Packed codes [M,K] as [K,M], packed along M: a new tensor (DeepGEMM `transpose_packed_fp4`). M
 * and K even. Done twice it gives the same bytes back.
 *
 * @throws DTypeError, ShapeError
 */
export function transposePackedFp4(device: Device, x: Tensor): Tensor {
  expectTensor("transposePackedFp4", "x", x, ["e2m1"], ["M", "K"], {});
  const [m, k] = [x.dim(0), x.dim(1)];
  if (m % 2 !== 0 || k % 2 !== 0) {
    throw new ShapeError("transposePackedFp4", "x", `[${x.shape}]`, "even numbers of both");
  }
  const out = Tensor.empty([k, m], "e2m1", x.name);
  device.run(turnOperation, { x, out });
  return out;
}

/**
 * e2m1 codes, one in each byte of a u8 tensor, packed two to a byte; the last dimension is even.
 */
export function packFp4(codes: Tensor): Tensor {
  if (codes.rank === 0 || codes.dim(-1) % 2 !== 0) {
    throw new ShapeError("packFp4", "codes", `[${codes.shape}]`, "an even last dimension");
  }
  expectTensor("packFp4", "codes", codes, ["u8"], codes.shape, {});
  const out = Tensor.empty(codes.shape, "e2m1", codes.name);
  const [from, to] = [codes.contiguous().bytes(), out.bytes()];
  for (let i = 0; i < to.length; i++) {
    const [low, high] = [from[2 * i] as number, from[2 * i + 1] as number];
    if ((low | high) > 15) {
      const at = low > 15 ? 2 * i : 2 * i + 1;
      throw new ArgumentError("packFp4", `codes[${at}]`, `${from[at]}`, "a code, 0 to 15");
    }
    to[i] = low | (high << 4);
  }
  return out;
}

/** The code of each element of an e2m1 tensor, one in each byte of a u8 tensor. */
export function unpackFp4(x: Tensor): Tensor {
  expectTensor("unpackFp4", "x", x, ["e2m1"], x.shape, {});
  const out = Tensor.empty(x.shape, "u8", x.name);
  const [from, to] = [x.contiguous().bytes(), out.bytes()];
  for (let i = 0; i < to.length; i++) to[i] = ((from[i >>> 1] as number) >>> ((i & 1) * 4)) & 15;
  return out;
}
