// The public face of the package: dtypes, tensors, conversions, safetensors, shared errors.

export { type Dims, expectContiguous, expectRows, expectTensor } from "./check.ts";
export { Checkpoint, type CheckpointTensorInfo } from "./checkpoint.ts";
export { decodeInto, encodeInto } from "./convert.ts";
export { byteSize, type DType, dtypeBits, dtypes, type RawArray, type RawArrays } from "./dtype.ts";
export { CheckpointError, DTypeError, InfraError, ShapeError, StorageError } from "./errors.ts";
export { SafetensorsFile } from "./safetensors.ts";
export type { TensorInfo, TensorSpec } from "./safetensors-header.ts";
export {
  SafetensorsWriter,
  type SafetensorsWriterOptions,
  writeSafetensors,
} from "./safetensors-writer.ts";
export { HostStorage, type Storage } from "./storage.ts";
export { contiguousStrides, Tensor, type TensorInit } from "./tensor.ts";
