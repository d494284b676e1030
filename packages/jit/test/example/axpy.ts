import { createDevice, defineKernel, type Operation } from "@open-infra/jit";
import { expectTensor, Tensor } from "@open-infra/tensor";

type Args = { x: Tensor<"f32">; y: Tensor<"f32">; a: number };

const axpy: Operation<Args> = {
  name: "axpy",
  check({ x, y }) {
    const dims = {};
    expectTensor("axpy", "x", x, ["f32"], ["N"], dims);
    expectTensor("axpy", "y", y, ["f32"], ["N"], dims);
  },
  reference: ({ x, y, a }) => y.raw().set(y.raw().map((v, i) => v + a * x.raw()[i]!)),
  kernels: {
    cpu: defineKernel({
      language: "c",
      source: new URL("axpy.c", import.meta.url),
      entry: "axpy",
      params: { x: "ptr", y: "ptr", n: "i64", a: "f64" },
      constants: () => ({ BLOCK: 4096 }),
      pack: ({ x, y, a }: Args) => ({ x, y, n: x.size, a }),
    }),
  },
};

using device = createDevice();
const x = Tensor.from([1, 2, 3], [3], "f32");
const y = Tensor.from([10, 20, 30], [3], "f32");
device.run(axpy, { x, y, a: 2 });
console.log([...y.raw()]); // [ 12, 24, 36 ]
