// A worker thread of device.test.ts: a device of its own, many launches, one answer.

import { parentPort, workerData } from "node:worker_threads";
import { createDevice, defineKernel, type Operation } from "@open-infra/jit";
import { Tensor } from "@open-infra/tensor";

const { cacheDir, factor } = workerData as { cacheDir: string; factor: number };

interface Args {
  readonly x: Tensor<"f32">;
  readonly out: Tensor<"f32">;
}

const scale: Operation<Args> = {
  name: "scale_in_worker",
  check: () => {},
  reference: () => {},
  kernels: {
    cpu: defineKernel({
      language: "c",
      source: new URL("kernels/spans.c", import.meta.url),
      entry: "scale",
      params: { x: "ptr", out: "ptr", seen: "ptr", n: "i64", factor: "f64" },
      constants: () => ({}),
      pack: ({ x, out }: Args) => ({ x, out, seen: null, n: x.size, factor }),
    }),
  },
};

using device = createDevice({ backend: "cpu", threads: 2, cacheDir });
const x = Tensor.from(new Float32Array(5000).fill(1), [5000], "f32");
const out = Tensor.empty([5000], "f32");
let wrong = 0;
for (let i = 0; i < 500; i++) {
  out.raw().fill(0);
  device.run(scale, { x, out });
  for (const value of out.raw()) if (value !== factor) wrong++;
}
parentPort?.postMessage(wrong === 0 ? factor : `${wrong} wrong`);
