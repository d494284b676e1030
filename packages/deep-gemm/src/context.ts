// What the original keeps in process-wide settings, as an object: a device with defaults for every
// call. Several may stand side by side, and a call's own options go before them.

import type { Device } from "@open-infra/jit";
import * as fp8 from "./cast.ts";
import * as channels from "./cast-channels.ts";
import * as custom from "./cast-custom.ts";
import * as fp4 from "./cast-fp4.ts";
import * as dense from "./deepgemm.ts";
import { einsum, fp8Einsum } from "./einsum.ts";
import { ArgumentError } from "./errors.ts";
import * as plain from "./gemm.ts";
import * as grouped from "./grouped.ts";
import * as prenorm from "./hc-prenorm.ts";
import * as moe from "./mega-moe.ts";
import * as logits from "./mqa-logits.ts";

/** Settings of a {@link DeepGemm}. */
export interface DeepGemmOptions {
  /** Threads that a call uses at most (`set_num_sms`); changes no result. @default the device's */
  readonly numSms?: number | undefined;
  /**
   * Where groups of the psum layouts start (`set_mk_alignment_for_contiguous_layout`). @default 128
   */
  readonly mkAlignment?: number | undefined;
  /** Whether rows of no group become zero, or are left alone. @default true */
  readonly ensureZeroPadding?: boolean | undefined;
  /** Whether dense products are cut along K where their options do not say. @default false */
  readonly splitK?: boolean | undefined;
}

// Functions of a device and options, by the module they are in.
const denseNames = [
  "bf16GemmNn",
  "bf16GemmNt",
  "bf16GemmTn",
  "bf16GemmTt",
  "fp8GemmNn",
  "fp8GemmNt",
  "fp8GemmTn",
  "fp8GemmTt",
  "fp8Fp4GemmNn",
  "fp8Fp4GemmNt",
  "fp8Fp4GemmTn",
  "fp8Fp4GemmTt",
  "fp8GemmNtSkipHeadMid",
] as const;
const groupedNames = [
  "mGroupedBf16GemmNnContiguous",
  "mGroupedBf16GemmNtContiguous",
  "mGroupedBf16GemmNtMasked",
  "mGroupedFp8GemmNnContiguous",
  "mGroupedFp8GemmNtContiguous",
  "mGroupedFp8GemmNtMasked",
  "mGroupedFp8Fp4GemmNnContiguous",
  "mGroupedFp8Fp4GemmNtContiguous",
  "mGroupedFp8Fp4GemmNtMasked",
  "kGroupedBf16GemmTnContiguous",
  "kGroupedFp8GemmNtContiguous",
  "kGroupedFp8GemmTnContiguous",
] as const;
const plainNames = ["gemmNt", "gemmNtBatched", "gemmNtGrouped"] as const;
const logitsNames = [
  "fp8MqaLogits",
  "fp8Fp4MqaLogits",
  "fp8PagedMqaLogits",
  "fp8Fp4PagedMqaLogits",
] as const;
const moeNames = ["fp8Fp4MegaMoe", "bf16MegaMoe"] as const;
const prenormNames = ["tf32HcPrenormGemm"] as const;
const fp8Names = ["perTokenCastToFp8", "perBlockCastToFp8", "castBackFromFp8"] as const;
const channelNames = ["perChannelCastToFp8", "kGroupedCastToFp8"] as const;
const customNames = ["perCustomDimsCastToFp8", "perRecipeCastToFp8"] as const;
const fp4Names = ["perTokenCastToFp4", "castBackFromFp4"] as const;

type Functions = Pick<typeof dense, (typeof denseNames)[number]> &
  Pick<typeof grouped, (typeof groupedNames)[number]> &
  Pick<typeof plain, (typeof plainNames)[number]> &
  Pick<typeof logits, (typeof logitsNames)[number]> &
  Pick<typeof moe, (typeof moeNames)[number]> &
  Pick<typeof prenorm, (typeof prenormNames)[number]> &
  Pick<typeof fp8, (typeof fp8Names)[number]> &
  Pick<typeof channels, (typeof channelNames)[number]> &
  Pick<typeof custom, (typeof customNames)[number]> &
  Pick<typeof fp4, (typeof fp4Names)[number]>;

function pick<M extends object, K extends keyof M>(module: M, names: readonly K[]): Pick<M, K> {
  return Object.fromEntries(names.map((name) => [name, module[name]])) as Pick<M, K>;
}

const functions: Functions = {
  ...pick(dense, denseNames),
  ...pick(grouped, groupedNames),
  ...pick(plain, plainNames),
  ...pick(logits, logitsNames),
  ...pick(moe, moeNames),
  ...pick(prenorm, prenormNames),
  ...pick(fp8, fp8Names),
  ...pick(channels, channelNames),
  ...pick(custom, customNames),
  ...pick(fp4, fp4Names),
};

/** The package's functions without their device. */
export type DeepGemmFunctions = {
  readonly [K in keyof Functions]: (args: Parameters<Functions[K]>[1]) => ReturnType<Functions[K]>;
};

/** The functions of a device with defaults; made by {@link createDeepGemm}. */
export interface DeepGemm extends DeepGemmFunctions {
  readonly device: Device;
  readonly options: DeepGemmOptions;
  /** DeepGEMM `einsum`. */
  einsum(expression: string, args: Parameters<typeof einsum>[2]): void;
  /** DeepGEMM `fp8_einsum`. */
  fp8Einsum(expression: string, args: Parameters<typeof fp8Einsum>[2]): void;
  /** Threads that a call uses at most (`get_num_sms`). */
  getNumSms(): number;
  /** `get_mk_alignment_for_contiguous_layout` */
  getMkAlignmentForContiguousLayout(): number;
  /** The alignment that groups need for speed or correctness: none, so 1. */
  getTheoreticalMkAlignmentForContiguousLayout(): number;
  /** Another one of the same device with some options changed; this one stays as it is. */
  with(options: DeepGemmOptions): DeepGemm;
}

/** Which functions take which option. */
const takesSplitK = /^(bf16|fp8|fp8Fp4)Gemm(Nt|Nn|Tn|Tt)$/;
const takesAlignment = /Contiguous$/;
const takesPadding = /^mGrouped.*Contiguous$/;
const takesNoThreads = /[cC]ast|^gemmNt/;

/** A function's defaults; the undefined ones left out, so that they hide nothing. */
function defaultsOf(name: string, options: DeepGemmOptions): object {
  const { numSms, mkAlignment, ensureZeroPadding, splitK } = options;
  return {
    ...(numSms !== undefined && !takesNoThreads.test(name) && { threads: numSms }),
    ...(mkAlignment !== undefined && takesAlignment.test(name) && { alignment: mkAlignment }),
    ...(ensureZeroPadding !== undefined && takesPadding.test(name) && { ensureZeroPadding }),
    ...(splitK !== undefined && takesSplitK.test(name) && { splitK }),
  };
}

/** Arguments with defaults for those that are missing or undefined. */
function completed<A extends object>(args: A, defaults: object): A {
  const out = { ...args } as Record<string, unknown>;
  for (const [name, value] of Object.entries(defaults)) out[name] ??= value;
  return out as A;
}

function expectOptions({ numSms, mkAlignment }: DeepGemmOptions): void {
  for (const [name, value] of Object.entries({ numSms, mkAlignment })) {
    if (value === undefined || (Number.isSafeInteger(value) && value > 0)) continue;
    throw new ArgumentError("createDeepGemm", name, `${value}`, "a positive integer");
  }
}

/**
 * Every function of this package on `device`, with `options` for what calls leave out. It has no
 * state of its own: other settings are another one, by `with`.
 *
 * @throws ArgumentError
 */
export function createDeepGemm(device: Device, options: DeepGemmOptions = {}): DeepGemm {
  expectOptions(options);
  const bound = Object.fromEntries(
    Object.entries(functions).map(([name, f]) => {
      const call = f as (device: Device, args: object) => unknown;
      const defaults = defaultsOf(name, options);
      const none = Object.keys(defaults).length === 0;
      const run = (args: object): unknown => call(device, none ? args : completed(args, defaults));
      return [name, run];
    }),
  ) as unknown as DeepGemmFunctions;
  const einsums = defaultsOf("einsum", options);
  return {
    ...bound,
    device,
    options,
    einsum: (expression, args) => einsum(device, expression, completed(args, einsums)),
    fp8Einsum: (expression, args) => fp8Einsum(device, expression, completed(args, einsums)),
    getNumSms: () => Math.min(options.numSms ?? device.threads, device.threads),
    getMkAlignmentForContiguousLayout: () => options.mkAlignment ?? grouped.MK_ALIGNMENT,
    getTheoreticalMkAlignmentForContiguousLayout: () => 1,
    with: (changed) => createDeepGemm(device, { ...options, ...changed }),
  };
}
