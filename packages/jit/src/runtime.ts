// The native side of a CPU device: kernels/runtime.c, compiled by the same cache as the kernels.

import { type KernelCache, kernelUrl } from "./compiler.ts";
import type { NativeFunction } from "./driver.ts";

export interface Runtime extends Disposable {
  /** Address of the thread pool. */
  readonly pool: number;
  /** Runs a kernel: block = pool, function, threads, scratch bytes per thread, parameters. */
  readonly launch: NativeFunction;
}

export function openRuntime(cache: KernelCache, threads: number): Runtime {
  const { library } = cache.load({
    name: "runtime",
    source: kernelUrl("runtime.c"),
    entry: "oi_launch",
    constants: {},
    params: {},
  });
  const block = new BigInt64Array([BigInt(threads)]);
  const pool = library.func("oi_pool_create")(block);
  const destroy = library.func("oi_pool_destroy");
  let open = true;
  return {
    pool: Number(pool),
    launch: library.func("oi_launch"),
    [Symbol.dispose]: () => {
      if (!open) return;
      open = false;
      destroy(new BigInt64Array([BigInt(pool)]));
    },
  };
}
