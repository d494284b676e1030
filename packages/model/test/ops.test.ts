// Contract of every small operation: the compiled kernel agrees with the plain reference, on odd
// sizes, several instruction sets and thread counts; and a row's bits do not depend on its batch.

import { createDevice, type Device, findCompiler, ReferenceDevice } from "@open-infra/jit";
import { Tensor } from "@open-infra/tensor";
import { type Random, requirement, seededRandom, testSeed } from "@open-infra/testing";
import { afterAll, beforeAll, describe, expect, it } from "vitest";
import type { RoutingConfig } from "../src/config.ts";
import type { ActDType } from "../src/ops/common.ts";
import { embed } from "../src/ops/embed.ts";
import { gatherRows } from "../src/ops/gather-rows.ts";
import { mlaPrepare } from "../src/ops/mla-prepare.ts";
import { residualNorm } from "../src/ops/residual-norm.ts";
import { route } from "../src/ops/route.ts";
import { siluMul } from "../src/ops/silu-mul.ts";

const seed = testSeed();
const isas = process.arch === "arm64" ? ["neon"] : ["", "avx2", "scalar"];
const missing = findCompiler() === undefined ? "no C compiler; install gcc or clang" : true;

function normal(random: Random, shape: number[], scale = 1): Tensor<"f32"> {
  const count = shape.reduce((a, b) => a * b, 1);
  return Tensor.from(
    Float32Array.from({ length: count }, () => random.normal() * scale),
    shape,
    "f32",
  );
}

function ints(values: readonly number[], shape = [values.length]): Tensor<"i32"> {
  return Tensor.from(values, shape, "i32");
}

/** Largest difference relative to the size of the numbers. */
function closeness(a: Tensor, b: Tensor): number {
  const [x, y] = [a.toFloat64(), b.toFloat64()];
  const top = y.reduce((m, v) => Math.max(m, Math.abs(v)), 1e-30);
  return x.reduce((m, v, i) => Math.max(m, Math.abs(v - y[i]!) / top), 0);
}

const tolerance: Record<ActDType, number> = { f32: 2e-6, bf16: 5e-3 };

describe.skipIf(requirement("model operations on the cpu device", missing))("operations", () => {
  const devices: Device[] = [];
  const reference = new ReferenceDevice();
  beforeAll(() => {
    for (const isa of isas)
      devices.push(createDevice({ backend: "cpu", threads: 2, ...(isa && { isa }) }));
    devices.push(createDevice({ backend: "cpu", threads: 1 }));
  });
  afterAll(() => {
    for (const device of devices) device[Symbol.dispose]();
  });

  it.each(["f32", "bf16", "f16"] as const)("embed from %s is exact", (dtype) => {
    const random = seededRandom(seed);
    for (const hidden of [1, 17, 64, 129]) {
      const table = Tensor.from(
        normal(random, [11, hidden], 0.01).toFloat32(),
        [11, hidden],
        dtype,
      );
      const ids = ints([3, 0, 10, 3, 7]);
      const want = Tensor.empty([5, hidden], "f32");
      reference.run(embed, { ids, table, out: want });
      for (const device of devices) {
        const out = Tensor.empty([5, hidden], "f32");
        device.run(embed, { ids, table, out });
        expect(out.raw(), `seed ${seed}, ${device.description}`).toEqual(want.raw());
      }
    }
  });

  it.each(["f32", "bf16"] as const)("residual_norm to %s", (dtype) => {
    for (const [tokens, hidden, topK] of [
      [1, 5, 1],
      [3, 67, 2],
      [9, 256, 8],
      [40, 1000, 3],
    ] as const) {
      const run = (device: Device): Tensor[] => {
        const random = seededRandom(seed + hidden);
        const h = normal(random, [tokens, hidden]);
        const rows = normal(random, [tokens * topK, hidden]);
        const order = Array.from({ length: tokens * topK }, (_, i) => i).reverse();
        const chosen = Array.from({ length: tokens }, (_, t) => t).filter((t) => t % 2 === 0);
        const common = { h, weight: normal(random, [hidden]), eps: 1e-6 };
        const out = Tensor.empty([tokens, hidden], dtype);
        const outF32 = Tensor.empty([tokens, hidden], "f32");
        const delta = normal(random, [tokens, hidden]);
        const experts = {
          rows,
          positions: ints(order, [tokens, topK]),
          weights: normal(random, [tokens, topK]),
        };
        device.run(residualNorm, { ...common, delta, experts, out, outF32 });
        const some = Tensor.empty([chosen.length, hidden], dtype);
        device.run(residualNorm, { ...common, delta, rows: ints(chosen), out: some });
        return [h, outF32, out, some];
      };
      const want = run(reference);
      for (const device of devices) {
        run(device).forEach((got, i) => {
          const limit = i < 2 ? tolerance.f32 : tolerance[dtype];
          const where = `seed ${seed}, ${tokens}×${hidden}, output ${i}, ${device.description}`;
          expect(closeness(got, want[i]!), where).toBeLessThan(limit);
        });
      }
    }
  });

  it.each(["f32", "bf16"] as const)("mla_prepare to %s", (dtype) => {
    for (const [tokens, heads, nope, rope, rank, interleaved] of [
      [1, 1, 3, 2, 5, true],
      [5, 3, 48, 16, 128, true],
      [4, 2, 19, 6, 33, false],
    ] as const) {
      const run = (device: Device): Tensor[] => {
        const random = seededRandom(seed + rank);
        const qWidth = heads * (nope + rope);
        // q and kv are column ranges of one wider tensor, as the fused projection gives them.
        const wide = normal(random, [tokens, qWidth + rank + rope + 3]);
        const slots = Array.from({ length: tokens }, (_, t) => t * 2 + 1);
        const cache = Tensor.empty([3, 8, 1, rank + rope], dtype);
        const qNope = Tensor.empty([tokens, heads, nope], dtype);
        const qLatent = Tensor.empty([tokens, heads, rank + rope], dtype);
        device.run(mlaPrepare, {
          q: wide.slice(1, 0, qWidth),
          kv: wide.slice(1, qWidth + 3, qWidth + 3 + rank + rope),
          kvNorm: normal(random, [rank]),
          eps: 1e-6,
          cos: normal(random, [16, rope / 2]),
          sin: normal(random, [16, rope / 2]),
          positions: ints(slots.map((s) => (s * 7) % 16)),
          slots: ints(slots),
          cache,
          qNope,
          qLatent,
          interleaved,
        });
        return [cache, qNope, qLatent];
      };
      const want = run(reference);
      for (const device of devices) {
        run(device).forEach((got, i) => {
          const where = `seed ${seed}, output ${i}, ${device.description}`;
          expect(closeness(got, want[i]!), where).toBeLessThan(tolerance[dtype]);
        });
      }
    }
  });

  it.each(["f32", "bf16"] as const)("silu_mul to %s", (dtype) => {
    for (const [rows, width, upOffset] of [
      [1, 1, 1],
      [3, 67, 128],
      [7, 2100, 2100],
    ] as const) {
      const random = seededRandom(seed + width);
      const x = normal(random, [rows, upOffset + width], 20);
      const want = Tensor.empty([rows, width], dtype);
      reference.run(siluMul, { x, upOffset, out: want });
      for (const device of devices) {
        const out = Tensor.empty([rows, width], dtype);
        device.run(siluMul, { x, upOffset, out });
        const where = `seed ${seed}, ${device.description}`;
        expect(closeness(out, want), where).toBeLessThan(tolerance[dtype]);
      }
    }
  });

  it("gather_rows copies bytes", () => {
    const random = seededRandom(seed);
    const rows = normal(random, [9, 37]);
    const scales = normal(random, [9, 2]);
    const index = ints([8, 0, 0, 5, 3]);
    for (const device of [...devices, reference]) {
      const out = Tensor.empty([5, 37], "f32");
      const second = { rows: scales, out: Tensor.empty([5, 2], "f32") };
      device.run(gatherRows, { index, rows, out, second });
      index.raw().forEach((t, i) => {
        expect(out.select(0, i).toFloat32()).toEqual(rows.select(0, t).toFloat32());
        expect(second.out.select(0, i).toFloat32()).toEqual(scales.select(0, t).toFloat32());
      });
    }
  });
});

const base: RoutingConfig = {
  scoring: "softmax",
  method: "greedy",
  experts: 8,
  expertsPerToken: 2,
  groups: 1,
  groupsPerToken: 1,
  normalise: false,
  scale: 1,
  scaleNormalised: true,
};
const grouped = { experts: 24, expertsPerToken: 5, groups: 6, groupsPerToken: 3 };
const routings: RoutingConfig[] = [
  base,
  { ...base, expertsPerToken: 8, normalise: true },
  { ...base, experts: 7, scale: 16 },
  { ...base, ...grouped, method: "group_limited_greedy", scale: 16 },
  {
    ...base,
    ...grouped,
    method: "group_limited_greedy",
    normalise: true,
    scaleNormalised: false,
    scale: 3,
  },
  { ...base, ...grouped, method: "noaux_tc", scoring: "sigmoid", normalise: true, scale: 2.5 },
  { ...base, ...grouped, groups: 24, groupsPerToken: 7, method: "noaux_tc", scoring: "sigmoid" },
  {
    ...base,
    experts: 256,
    expertsPerToken: 8,
    groups: 8,
    groupsPerToken: 4,
    method: "noaux_tc",
    scoring: "sigmoid",
  },
];

function routeOutputs(tokens: number, routing: RoutingConfig) {
  const { experts, expertsPerToken: k } = routing;
  return {
    ids: Tensor.empty([tokens, k], "i32"),
    weights: Tensor.empty([tokens, k], "f32"),
    offsets: Tensor.empty([experts + 1], "i32"),
    sources: Tensor.empty([tokens * k], "i32"),
    positions: Tensor.empty([tokens, k], "i32"),
  };
}

describe.skipIf(requirement("routing on the cpu device", missing))("route", () => {
  const reference = new ReferenceDevice();
  it.each(routings.map((routing, i) => [i, routing] as const))("rule %i", (_, routing) => {
    for (const threads of [1, 2]) {
      using device = createDevice({ backend: "cpu", threads });
      for (const tokens of [1, 7, 300]) {
        const random = seededRandom(seed + tokens);
        const logits = normal(random, [tokens, routing.experts], 2);
        // Equal logits, so that the rule for ties is seen.
        logits.raw().fill(0.5, 0, Math.min(3, routing.experts));
        const bias =
          routing.method === "noaux_tc" ? normal(random, [routing.experts], 0.1) : undefined;
        const want = routeOutputs(tokens, routing);
        const got = routeOutputs(tokens, routing);
        reference.run(route, { logits, bias, routing, ...want });
        device.run(route, { logits, bias, routing, ...got });
        const where = `seed ${seed}, ${tokens} tokens, ${device.description}`;
        expect(got.ids.raw(), where).toEqual(want.ids.raw());
        expect(got.offsets.raw(), where).toEqual(want.offsets.raw());
        expect(got.sources.raw(), where).toEqual(want.sources.raw());
        expect(got.positions.raw(), where).toEqual(want.positions.raw());
        expect(closeness(got.weights, want.weights), where).toBeLessThan(1e-5);
      }
    }
  });

  it("never leaves its tables on NaN or infinite logits", () => {
    using device = createDevice({ backend: "cpu", threads: 2 });
    for (const routing of routings) {
      for (const bad of [Number.NaN, Infinity, -Infinity]) {
        const logits = normal(seededRandom(seed), [5, routing.experts]);
        logits.raw().fill(bad);
        const got = routeOutputs(5, routing);
        device.run(route, { logits, routing, ...got });
        for (let t = 0; t < 5; t++) {
          const ids = [...got.ids.select(0, t).raw()];
          expect(new Set(ids).size).toBe(ids.length);
          for (const id of ids) expect(id).toSatisfy((x: number) => x >= 0 && x < routing.experts);
        }
        expect(got.offsets.raw()[routing.experts]).toBe(5 * routing.expertsPerToken);
      }
    }
  });
});
