export { type Dims, expectContiguous, expectRows, expectTensor } from "./check.ts";
export { decodeInto, encodeInto } from "./convert.ts";
export { byteSize, type DType, dtypeBits, dtypes, type RawArray, type RawArrays } from "./dtype.ts";
export { DTypeError, InfraError, ShapeError, StorageError } from "./errors.ts";
export { HostStorage, type Storage } from "./storage.ts";
export { contiguousStrides, Tensor, type TensorInit } from "./tensor.ts";
