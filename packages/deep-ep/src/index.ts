// The public face: buffers that dispatch tokens to experts and combine what comes back.

export {
  Config,
  type ConfigInit,
  getCombineConfig,
  getDispatchConfig,
  getLowLatencyRdmaSizeHint,
  type LowLatencyShape,
} from "./config.ts";
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
