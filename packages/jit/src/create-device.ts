// The choice between devices.

import { searchCompiler } from "./compiler.ts";
import { CpuDevice } from "./cpu-device.ts";
import type { Device, DeviceOptions } from "./device.ts";
import { CompilerMissingError, JitOptionError } from "./errors.ts";
import { readJitOptions } from "./options.ts";
import { ReferenceDevice } from "./reference-device.ts";

/**
 * Opens a device.
 *
 * @throws CompilerMissingError if `cpu` was asked for and no C compiler is found; JitOptionError
 * for an instruction set this machine lacks; CacheError if the kernel cache cannot be used;
 * DeviceError if the threads are not to be had.
 */
export function createDevice(options: DeviceOptions = {}): Device {
  const backend: string = options.backend ?? "auto";
  if (backend === "reference") return new ReferenceDevice();
  if (backend !== "auto" && backend !== "cpu") {
    throw new JitOptionError("backend", `'${backend}'`, "auto, cpu or reference");
  }
  const environment = readJitOptions();
  const { compiler, tried } = searchCompiler(environment);
  if (compiler === undefined) {
    const missing = new CompilerMissingError(tried);
    if (backend === "cpu") throw missing;
    const say = options.onFallback ?? ((reason: string) => console.error(`open-infra: ${reason}`));
    say(`${missing.message} Running on the reference backend, which is slow.`);
    return new ReferenceDevice();
  }
  const jit = {
    ...environment,
    ...(options.cacheDir !== undefined && { cacheDir: options.cacheDir }),
    ...(options.readonlyCacheDirs !== undefined && {
      readonlyCacheDirs: options.readonlyCacheDirs,
    }),
    ...(options.isa !== undefined && { isa: options.isa }),
  };
  return new CpuDevice({
    compiler,
    jit,
    ...(options.threads !== undefined && { threads: options.threads }),
    ...(options.recorder !== undefined && { recorder: options.recorder }),
  });
}
