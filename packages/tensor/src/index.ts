// The public face of the package: dtypes, tensors, conversions, safetensors, shared errors.

export { type Dims, expectContiguous, expectRows, expectTensor } from "./check.ts";
export { Checkpoint, type CheckpointTensorInfo } from "./checkpoint.ts";
export { convertInto, decodeInto, type EncodeOptions, encodeInto } from "./convert.ts";
export { byteSize, type DType, dtypeBits, dtypes, type RawArray, type RawArrays } from "./dtype.ts";
export {
  CheckpointError,
  ConversionError,
  DTypeError,
  InfraError,
  ShapeError,
  StorageError,
} from "./errors.ts";
export {
  bf16FromNumber,
  bf16ToNumber,
  e2m1FromNumber,
  e2m1ToNumber,
  e4m3FromNumber,
  e4m3ToNumber,
  e5m2FromNumber,
  e5m2ToNumber,
  f16FromNumber,
  f16ToNumber,
  type ScaleRounding,
  ue8m0FromNumber,
  ue8m0ToNumber,
} from "./minifloat.ts";
export { SafetensorsFile } from "./safetensors.ts";
export type { TensorInfo, TensorSpec } from "./safetensors-header.ts";
export {
  SafetensorsWriter,
  type SafetensorsWriterOptions,
  writeSafetensors,
} from "./safetensors-writer.ts";
export { HostStorage, type Storage } from "./storage.ts";
export { contiguousStrides } from "./strided.ts";
export { Tensor, type TensorInit } from "./tensor.ts";
