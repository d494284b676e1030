// Casts to e4m3 whose scales belong to columns: a scale per column and block of rows, for operands
// that are summed along their rows (weight gradients, groups along K). Scales along rows are in
// cast.ts.

import { type Device, defineKernel, type Operation } from "@open-infra/jit";
import { type DType, expectRows, expectTensor, ShapeError, Tensor } from "@open-infra/tensor";
import { elementsPerThread, emptyCodes, streams } from "./cast.ts";
import { ArgumentError } from "./errors.ts";
import { fp8ScaleOf } from "./fp8-scale.ts";
import { SCALE_BLOCK, type ScaledTensor } from "./operand.ts";

interface ChannelCall {
  readonly operation: string;
  /** [M,N] */
  readonly x: Tensor;
  /** e4m3 [M,N] of any strides, f32 [ceil(M/granM), N] */
  readonly scaled: ScaledTensor;
  readonly granM: number;
  readonly useUe8m0: boolean;
}

const floats: readonly DType[] = ["f32", "bf16", "f16"];

function expectGranM(operation: string, granM: number): void {
  if (Number.isSafeInteger(granM) && granM > 0) return;
  throw new ArgumentError(operation, "granM", `${granM}`, "a positive integer");
}

function checkChannels({ operation, x, scaled, granM }: ChannelCall): void {
  expectGranM(operation, granM);
  const dims = {};
  expectTensor(operation, "x", x, floats, ["M", "N"], dims);
  expectRows(operation, "x", x);
  expectTensor(operation, "data", scaled.data, ["e4m3fn"], ["M", "N"], dims);
  const blocks = [Math.ceil(x.dim(0) / granM), x.dim(1)];
  expectTensor(operation, "scales", scaled.scales, ["f32"], blocks, {});
}

function channelsReference({ x, scaled, granM, useUe8m0 }: ChannelCall): void {
  const [m, n] = [x.dim(0), x.dim(1)];
  const values = x.toFloat64();
  const scales = new Float64Array(Math.ceil(m / granM) * n);
  for (let i = 0; i < values.length; i++) {
    const at = Math.floor(Math.floor(i / n) / granM) * n + (i % n);
    // Math.max keeps a NaN, so a block with one gets a NaN scale.
    scales[at] = Math.max(scales[at] as number, Math.abs(values[i] as number));
  }
  for (let i = 0; i < scales.length; i++) scales[i] = fp8ScaleOf(scales[i] as number, useUe8m0);
  for (let i = 0; i < values.length; i++) {
    const scale = scales[Math.floor(Math.floor(i / n) / granM) * n + (i % n)] as number;
    values[i] = Math.fround((values[i] as number) * Math.fround(1 / scale));
  }
  scaled.data.copyFrom(Tensor.from(values, [m, n], "e4m3fn"));
  scaled.scales.copyFrom(Tensor.from(scales, scaled.scales.shape, "f32"));
}

const channelOperation: Operation<ChannelCall> = {
  name: "castChannelsToFp8",
  check: checkChannels,
  reference: channelsReference,
  kernels: {
    cpu: defineKernel({
      language: "c",
      source: new URL("../kernels/cast_channels.c", import.meta.url),
      entry: "cast_channels",
      params: {
        x: "ptr",
        data: "ptr",
        scales: "ptr",
        m: "i64",
        n: "i64",
        ldx: "i64",
        q_row: "i64",
        q_col: "i64",
        s_m: "i64",
        s_c: "i64",
        gran_m: "i64",
        ue8m0: "i64",
        stream: "i64",
      },
      constants: ({ x }: ChannelCall) => ({ X_TYPE: floats.indexOf(x.dtype) }),
      pack: ({ x, scaled, granM, useUe8m0 }) => ({
        x,
        data: scaled.data,
        scales: scaled.scales,
        m: x.dim(0),
        n: x.dim(1),
        ldx: x.stride(0),
        q_row: scaled.data.stride(0),
        q_col: scaled.data.stride(1),
        s_m: scaled.scales.stride(0),
        s_c: scaled.scales.stride(1),
        gran_m: granM,
        ue8m0: useUe8m0 ? 1 : 0,
        stream: streams(scaled.data) ? 1 : 0,
      }),
      threads: ({ x }) => Math.max(1, Math.floor(x.size / elementsPerThread)),
    }),
  },
  work: ({ x }) => ({ flops: 2 * x.size, bytes: x.byteLength + x.size }),
};

/** Options of {@link perChannelCastToFp8}. */
export interface ChannelCastOptions {
  /** [M,N] f32, bf16 or f16; rows may be apart. */
  readonly x: Tensor;
  /** Scales rounded up to powers of two. @default false */
  readonly useUe8m0?: boolean | undefined;
  /** Rows of a column that share a scale. @default 128 */
  readonly granM?: number | undefined;
  /** Written instead of new tensors; any strides. */
  readonly out?: ScaledTensor | undefined;
}

/**
 * e4m3 codes with one scale per column and `granM` rows: data [M,N], scales f32 [ceil(M/granM), N]
 * (DeepGEMM `per_channel_cast_to_fp8`). A column's block with a NaN becomes all NaN.
 *
 * @throws DTypeError, ShapeError, ArgumentError
 */
export function perChannelCastToFp8(device: Device, options: ChannelCastOptions): ScaledTensor {
  const operation = "perChannelCastToFp8";
  const { x, granM = SCALE_BLOCK, useUe8m0 = false } = options;
  expectGranM(operation, granM);
  expectTensor(operation, "x", x, floats, ["M", "N"], {});
  const scaled = options.out ?? {
    data: emptyCodes(x.shape, "e4m3fn", x.name),
    scales: Tensor.empty([Math.ceil(x.dim(0) / granM), x.dim(1)], "f32"),
  };
  device.run(channelOperation, { operation, x, scaled, granM, useUe8m0 });
  return scaled;
}

/** Options of {@link kGroupedCastToFp8}. */
export interface KGroupedCastOptions {
  /** [ΣK,M] f32, bf16 or f16: the rows of group after group. */
  readonly x: Tensor;
  /** Rows of each group, 0 allowed; their sum is ΣK. */
  readonly ks: readonly number[];
  /** How the product that takes it wants it. */
  readonly layout: "nt" | "tn";
  /** Scales rounded up to powers of two. @default false */
  readonly useUe8m0?: boolean | undefined;
  /** k that share a scale. @default 128 */
  readonly granK?: number | undefined;
}

/**
 * A factor of a k-grouped product. `tn`: data [ΣK,M], scales [Σ ceil(k/granK), M]; `nt`: data flat,
 * the groups' [M,k] one after another, scales [M, Σ ceil(k/granK)] (a view of the former). Scales
 * never reach over the end of a group, whose k needs to be a multiple of nothing.
 *
 * @throws DTypeError, ShapeError, ArgumentError
 */
export function kGroupedCastToFp8(device: Device, options: KGroupedCastOptions): ScaledTensor {
  const operation = "kGroupedCastToFp8";
  const { x, ks, layout, granK = SCALE_BLOCK, useUe8m0 = false } = options;
  expectGranM(operation, granK);
  expectTensor(operation, "x", x, floats, ["ΣK", "M"], {});
  const [total, m] = [x.dim(0), x.dim(1)];
  const sum = ks.reduce((a, k) => a + k, 0);
  const whole = ks.every((k) => Number.isSafeInteger(k) && k >= 0);
  if (!whole || sum !== total) {
    const allowed = `sizes of 0 or more that add up to the ${total} rows of x`;
    throw new ArgumentError(operation, "ks", `[${ks}]`, allowed);
  }
  const rows = ks.reduce((a, k) => a + Math.ceil(k / granK), 0);
  const flat = Tensor.empty([total * m], "e4m3fn", x.name);
  const scales = Tensor.empty([rows, m], "f32");
  let [from, row] = [0, 0];
  for (const k of ks) {
    const blocks = Math.ceil(k / granK);
    const part = flat.slice(0, from * m, (from + k) * m);
    const data = layout === "tn" ? part.reshape([k, m]) : part.reshape([m, k]).transpose(0, 1);
    const scaled = { data, scales: scales.slice(0, row, row + blocks) };
    const group = x.slice(0, from, from + k);
    device.run(channelOperation, { operation, x: group, scaled, granM: granK, useUe8m0 });
    from += k;
    row += blocks;
  }
  if (layout === "tn") return { data: flat.reshape([total, m]), scales };
  if (layout === "nt") return { data: flat, scales: scales.transpose(0, 1) };
  throw new ShapeError(operation, "layout", `'${layout as string}'`, "'nt' or 'tn'");
}
