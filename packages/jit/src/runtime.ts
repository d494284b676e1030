// The native side of a CPU device: kernels/runtime.c, compiled by the same cache as the kernels,
// and what its return codes mean.

import type { KernelCache } from "./cache.ts";
import type { NativeFunction } from "./driver.ts";
import { DeviceError } from "./errors.ts";
import { kernelUrl } from "./paths.ts";

/** A thread pool. */
export interface Runtime extends Disposable {
  /** Address of the thread pool. */
  readonly pool: number;
  /**
   * Runs a kernel: block = pool, function, threads, scratch bytes per thread, parameters. Returns 0
   * or a code for {@link launchProblem}.
   */
  readonly launch: NativeFunction;
  /** The same function, to be called by native code. */
  readonly launchAddress: number;
  /** block = address, bytes. Returns the bytes for which huge pages were asked. */
  readonly adviseHuge: NativeFunction;
}

const noMemory = -1;
const noThread = -2;
const forked = -3;

/** Most threads a pool may have. */
export const MAX_THREADS = 1024;

/** Starts a pool. @throws DeviceError if the system does not grant the threads or their memory. */
export function openRuntime(cache: KernelCache, threads: number): Runtime {
  const { library } = cache.load({
    name: "runtime",
    source: kernelUrl("runtime.c"),
    entry: "oi_launch",
    constants: {},
    params: {},
  });
  const pool = Number(library.func("oi_pool_create")(new BigInt64Array([BigInt(threads)])));
  if (pool === noThread || pool === noMemory) {
    throw new DeviceError(
      `The system does not grant ${threads} threads` +
        `${pool === noMemory ? " the memory" : ""}; ask ` +
        "for fewer with the device option 'threads', or raise the limit (ulimit -u)",
    );
  }
  const destroy = library.func("oi_pool_destroy");
  let open = true;
  return {
    pool,
    launch: library.func("oi_launch"),
    launchAddress: library.symbol("oi_launch"),
    adviseHuge: library.func("oi_advise_huge"),
    [Symbol.dispose]: () => {
      if (!open) return;
      open = false;
      destroy(new BigInt64Array([BigInt(pool)]));
    },
  };
}

/** The error that a launch's return code stands for. */
export function launchProblem(
  code: number,
  operation: string,
  threads: number,
  scratchBytes: number,
): DeviceError {
  if (code === noMemory) {
    return new DeviceError(
      `${operation}: no memory for ${scratchBytes} bytes of scratch on each of ${threads} threads`,
    );
  }
  if (code === forked) {
    return new DeviceError(`${operation}: the device was opened before a fork; open one after it`);
  }
  return new DeviceError(`${operation}: the launch failed with code ${code}`);
}
