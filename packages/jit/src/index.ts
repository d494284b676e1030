// The public face: what an operation is, devices that run operations, and the cache of compiled
// kernels as a person handles it. How C is compiled and launched stays inside.

export { type CacheEntry, type CacheLocation, clearCache, listCache } from "./admin.ts";
export { type Bf16Products, bf16Products } from "./bf16-products.ts";
export { exportCache, importCache } from "./bundle.ts";
export { type Compiler, findCompiler } from "./compiler.ts";
export { createDevice } from "./create-device.ts";
export type { Device, DeviceOptions, WarmupOptions, WarmupProgress } from "./device.ts";
export { addressOf, type NativeFunction, viewOf } from "./driver.ts";
export {
  BundleError,
  CacheError,
  CompileError,
  CompilerMissingError,
  compilerAdvice,
  DeviceError,
  JitOptionError,
  UnsupportedError,
} from "./errors.ts";
export {
  type AnyKernel,
  type BackendName,
  defineKernel,
  type Kernel,
  type KernelConstants,
  type Operation,
  type ParamLayout,
  type ParamValues,
  type Target,
} from "./operation.ts";
export { jitCacheDir } from "./options.ts";
export { pointerOf } from "./param-block.ts";
export {
  type MachineLimits,
  type MeasureOptions,
  measureMachine,
  type TileLimits,
} from "./probe.ts";
export { ReferenceDevice } from "./reference-device.ts";
export {
  type Bound,
  type ComputeUnit,
  computePeak,
  largestLimits,
  readBandwidth,
  roofline,
  type Work,
} from "./roofline.ts";
export { sanitizerEnvironment } from "./sanitize.ts";
export type { KernelSpec } from "./source.ts";
export {
  type NativeCode,
  type NativePool,
  NativeToolchain,
  type ToolchainOptions,
} from "./toolchain.ts";
