// The float64 reference of the gradients against central differences of a forward pass written
// apart from it (G10).

import { ReferenceDevice } from "@open-infra/jit";
import { Tensor } from "@open-infra/tensor";
import { seededRandom, testSeed } from "@open-infra/testing";
import { describe, expect, it } from "vitest";
import { forwardOracle, mhaProblem, runBoth } from "./mha-problems.ts";
import { drawn } from "./problems.ts";

const seed = testSeed();
const step = 1e-4;

describe("the reference's gradients are those of its forward pass", () => {
  it.each([
    [4, 2, true],
    [3, 3, false],
    [4, 1, true],
  ])("%i heads over %i, causal %s", (h, hkv, causal) => {
    const random = seededRandom(seed);
    const lens = { lensQ: [3, 0, 7, 4], lensK: [5, 2, 4, 0] };
    const shape = { h, hkv, dqk: 6, dv: 5, ...lens, dtype: "f32" as const, causal };
    const problem = { ...mhaProblem(random, shape), softmaxScale: 0.8 };
    const dLse = Tensor.from(drawn(random, 14 * h), [14, h], "f32");
    const got = runBoth(new ReferenceDevice(), problem, { dLse });
    const inputs = {
      q: problem.q.toFloat64(),
      k: problem.k.toFloat64(),
      v: problem.v.toFloat64(),
    };
    const [weights, lseWeights] = [problem.dOut.toFloat64(), dLse.toFloat64()];
    const loss = (): number => {
      const { out, lse } = forwardOracle(problem, inputs.q, inputs.k, inputs.v);
      // A row without keys is 0 with lse +inf whatever its inputs are.
      const seen = lse.map((x, i) => (x === Number.POSITIVE_INFINITY ? 0 : x * lseWeights[i]!));
      const values = out.map((x, i) => x * weights[i]!);
      return [...values, ...seen].reduce((a, b) => a + b, 0);
    };
    for (const [name, array] of Object.entries(inputs)) {
      const gradient = got[`d${name}` as "dq" | "dk" | "dv"].toFloat64();
      const largest = gradient.reduce((a, b) => Math.max(a, Math.abs(b)), 0);
      expect(largest).toBeGreaterThan(0.01);
      for (let n = 0; n < 60; n++) {
        const at = random.int(0, array.length);
        const x = array[at]!;
        array[at] = x + step;
        const above = loss();
        array[at] = x - step;
        const below = loss();
        array[at] = x;
        const slope = (above - below) / (2 * step);
        const error = Math.abs(slope - gradient[at]!);
        expect(error, `seed ${seed}, ${name}[${at}]`).toBeLessThan(1e-5 * Math.max(0.1, largest));
        if (Math.abs(slope) > largest / 10) expect(error / Math.abs(slope)).toBeLessThan(1e-5);
      }
    }
  });
});
