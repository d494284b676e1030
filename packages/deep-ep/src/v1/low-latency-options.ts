// What calls of the low-latency mode take and give, and what they refuse before anything is sent.

import { InputError } from "@open-infra/errors";
import type { DType, Tensor } from "@open-infra/tensor";
import { expectCount } from "../config.ts";
import type { EventOverlap } from "../event.ts";
import { checkExperts, expectTopk } from "../layout.ts";

/** When receiving happens: at once, on the stream (`asyncFinish`), or in the returned hook. */
export interface ReceiveOptions {
  readonly asyncFinish?: boolean;
  /** The call only sends; calling the hook receives. Not together with `asyncFinish`. */
  readonly returnRecvHook?: boolean;
}

/** See `Buffer.lowLatencyDispatch`. */
export interface LowLatencyDispatchOptions extends ReceiveOptions {
  /** `[tokens, k]` i64; −1 selects nothing, and a token names an expert at most once. */
  readonly topkIdx: Tensor<"i64">;
  /** Most tokens of any rank; the same number on all. */
  readonly numMaxDispatchTokensPerRank: number;
  readonly numExperts: number;
  /** @default true */
  readonly useFp8?: boolean;
  /** Scales are powers of two. @default false */
  readonly roundScale?: boolean;
  /** Scales come as packed exponents; needs `roundScale`. @default false */
  readonly useUe8m0?: boolean;
  /** `[local experts]` i32 that what came is added to. */
  readonly cumulativeLocalExpertRecvStats?: Tensor<"i32">;
  /** `[ranks]` i64 that the nanoseconds waited for each rank are added to. */
  readonly dispatchWaitRecvCostStats?: Tensor<"i64">;
}

/** What a low-latency dispatch leaves for its combine. */
export interface LowLatencyHandle {
  /** `[local experts, ranks · tokens]` i32: the token, of its own rank, that a row is. */
  readonly srcInfo: Tensor<"i32">;
  /** `[local experts, ranks]` i64: rows of a rank in the low half, the first one in the high. */
  readonly layoutRange: Tensor<"i64">;
  readonly numMaxDispatchTokensPerRank: number;
  readonly hidden: number;
  readonly numExperts: number;
  /** Its number among the dispatches. */
  readonly sequence: number;
  readonly counts: Tensor<"i32">;
  readonly places: Tensor<"i32">;
}

/** What came for each local expert; valid until its combine is called, or two dispatches later. */
export interface LowLatencyDispatchResult {
  /**
   * `[local experts, ranks · tokens, hidden]`, the first `recvCount` rows of each expert: bf16, or
   * e4m3 with scales whose last two dimensions are column-major.
   */
  readonly recvX: Tensor | readonly [codes: Tensor<"e4m3fn">, scales: Tensor];
  /** `[local experts]` i32. */
  readonly recvCount: Tensor<"i32">;
  readonly handle: LowLatencyHandle;
  readonly event: EventOverlap;
  /** Receives, with `returnRecvHook`; to be called once. */
  readonly hook: () => void;
}

/** See `Buffer.lowLatencyCombine`. */
export interface LowLatencyCombineOptions extends ReceiveOptions {
  /** As given to dispatch. */
  readonly topkIdx: Tensor<"i64">;
  /** `[tokens, k]` f32. */
  readonly topkWeights: Tensor<"f32">;
  readonly handle: LowLatencyHandle;
  /** Rows below 1 in magnitude travel with 10 bits an element. @default false */
  readonly useLogfmt?: boolean;
  /** `x` is the buffer of `getNextLowLatencyCombineBuffer`, and is read there. @default false */
  readonly zeroCopy?: boolean;
  /** `[tokens, hidden]` bf16 to write to. */
  readonly out?: Tensor<"bf16">;
  /** `[ranks]` i64 that the nanoseconds waited for each rank are added to. */
  readonly combineWaitRecvCostStats?: Tensor<"i64">;
}

/** Weighted sums of this rank's tokens. */
export interface LowLatencyCombineResult {
  /** `[tokens, hidden]` bf16. */
  readonly combinedX: Tensor<"bf16">;
  readonly event: EventOverlap;
  readonly hook: () => void;
}

/** How tokens travel. */
export interface Format {
  readonly fp8: boolean;
  readonly roundScale: boolean;
  readonly ue8m0: boolean;
  readonly rowBytes: number;
  /** 32-bit words of scales. */
  readonly scales: number;
  readonly code: number;
}

/** One of two ways to receive. */
export function bothWays(): InputError {
  return new InputError("asyncFinish and returnRecvHook", "both", "one of them");
}

/** @throws InputError unless a given tensor is contiguous, of this type and shape */
export function expectTensor(
  name: string,
  tensor: Tensor | undefined,
  dtype: DType,
  shape: readonly number[],
): void {
  if (tensor === undefined) return;
  if (tensor.dtype === dtype && tensor.isContiguous && `${tensor.shape}` === `${shape}`) return;
  throw new InputError(name, tensor.describe(), `contiguous ${dtype} of [${shape}]`);
}

/** What a dispatch is to send, and how. @throws InputError */
export function checkDispatch(
  x: Tensor,
  options: LowLatencyDispatchOptions,
  ranks: number,
): Format {
  const { topkIdx, numMaxDispatchTokensPerRank: most, numExperts } = options;
  const { useFp8: fp8 = true, roundScale = false, useUe8m0: ue8m0 = false } = options;
  expectCount("numMaxDispatchTokensPerRank", most, 1);
  checkExperts(numExperts, ranks);
  const [tokens] = expectTopk(topkIdx);
  if (x.dtype !== "bf16" || x.rank !== 2 || !x.isContiguous || x.dim(1) < 1) {
    throw new InputError("x", x.describe(), "contiguous bf16 of [tokens, hidden]");
  }
  if (x.dim(0) > most) {
    throw new InputError("x", x.describe(), `at most ${most} tokens (numMaxDispatchTokensPerRank)`);
  }
  if (tokens !== x.dim(0) || !topkIdx.isContiguous) {
    throw new InputError("topkIdx", topkIdx.describe(), `contiguous i64 of [${x.dim(0)}, k]`);
  }
  if (ue8m0 && !(fp8 && roundScale)) {
    throw new InputError("useUe8m0", "true", "with useFp8 and roundScale");
  }
  if (options.asyncFinish && options.returnRecvHook) throw bothWays();
  const local = numExperts / ranks;
  const { cumulativeLocalExpertRecvStats: stats, dispatchWaitRecvCostStats: cost } = options;
  expectTensor("cumulativeLocalExpertRecvStats", stats, "i32", [local]);
  expectTensor("dispatchWaitRecvCostStats", cost, "i64", [ranks]);
  const hidden = x.dim(1);
  const blocks = Math.ceil(hidden / 128);
  return {
    fp8,
    roundScale: fp8 && roundScale,
    ue8m0,
    rowBytes: fp8 ? hidden : 2 * hidden,
    scales: fp8 ? (ue8m0 ? Math.ceil(blocks / 4) : blocks) : 0,
    code: (fp8 ? 1 : 0) + (fp8 && roundScale ? 2 : 0) + (ue8m0 ? 4 : 0),
  };
}
