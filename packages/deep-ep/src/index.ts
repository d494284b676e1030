// The public face: buffers that dispatch tokens to experts and combine what comes back.

export {
  Config,
  type ConfigInit,
  getCombineConfig,
  getDispatchConfig,
  getLowLatencyRdmaSizeHint,
  type LowLatencyShape,
} from "./config.ts";
export * from "./elastic/index.ts";
export { BufferCapacityError, BufferStateError } from "./errors.ts";
export { EventOverlap } from "./event.ts";
export {
  type CastOptions,
  type Fp8Cast,
  packUe8m0,
  perTokenCastBack,
  perTokenCastToFp8,
  scaleBlock,
  ue8m0Of,
} from "./fp8.ts";
export { type DispatchLayout, dispatchLayout, type LayoutShape } from "./layout.ts";
export { Buffer, type BufferOptions, type TokenTraffic } from "./v1/buffer.ts";
export type { CombineOptions, CombineResult } from "./v1/combine.ts";
export type { DispatchInput, DispatchOptions, DispatchResult } from "./v1/dispatch.ts";
export type { DispatchHandle } from "./v1/handle.ts";
export type { LayoutResult } from "./v1/layout-call.ts";
export type {
  LowLatencyCombineOptions,
  LowLatencyCombineResult,
  LowLatencyDispatchOptions,
  LowLatencyDispatchResult,
  LowLatencyHandle,
  ReceiveOptions,
} from "./v1/low-latency-options.ts";
export type { CallOptions } from "./v1/operation.ts";
