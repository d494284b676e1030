import type { Stage } from "@open-infra/dualpipe/runtime";
import { Tensor } from "@open-infra/tensor";

/** y = w·x with one weight, which starts at `options.w`. */
export function createStage(options: { w: number }): Stage<Float64Array> {
  const gradient = Tensor.empty([1], "f64");
  const times = (t: Tensor): Tensor => {
    const scaled = t.toFloat64().map((value) => options.w * value);
    return Tensor.from(scaled, t.shape, "f64");
  };
  return {
    forward: ([x]) => ({ outputs: [times(x!)], saved: x!.toFloat64() }),
    backwardInput: (_x, [g]) => [times(g!)],
    backwardWeight: (x, [g]) => {
      const grad = g!.toFloat64();
      gradient.raw()[0]! += x.reduce((sum, value, i) => sum + value * grad[i]!, 0);
    },
    gradients: () => [gradient],
  };
}
