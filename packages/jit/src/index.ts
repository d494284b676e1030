export { CompileError, CompilerMissingError, findCompiler } from "./compiler.ts";
export {
  createDevice,
  type Device,
  type DeviceOptions,
  ReferenceDevice,
  UnsupportedError,
  type WarmupOptions,
  type WarmupProgress,
} from "./device.ts";
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
