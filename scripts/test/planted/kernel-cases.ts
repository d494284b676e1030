// The planted kernel as cases; OPEN_INFRA_TEST_PLANT says which fault it has.

import { type Device, defineKernel, type Operation } from "@open-infra/jit";
import { Tensor } from "@open-infra/tensor";

/** What is planted, in the order of the numbers in planted.c. */
export const plants = ["nothing", "after", "before", "overflow", "scratch", "assembly"] as const;

interface Args {
  readonly x: Tensor<"f32">;
  readonly y: Tensor<"f32">;
}

const planted: Operation<Args> = {
  name: "planted",
  check: () => {},
  reference: () => {},
  kernels: {
    cpu: defineKernel({
      language: "c",
      source: new URL("planted.c", import.meta.url),
      entry: "planted",
      params: { x: "ptr", y: "ptr", n: "i64", big: "i64" },
      constants: () => ({ PLANT: (plants as readonly unknown[]).indexOf(plant) }),
      pack: ({ x, y }: Args) => ({ x, y, n: x.size, big: 2 ** 31 - 1 }),
      threads: () => 1,
      scratchBytes: () => 16,
    }),
  },
};
const plant = process.env.OPEN_INFRA_TEST_PLANT ?? "nothing";

export const kernelCases: Readonly<Record<string, (device: Device) => void>> = {
  [plant]: (device) =>
    device.run(planted, { x: Tensor.empty([5], "f32"), y: Tensor.empty([1], "f32") }),
};
