// Small calls of this package's kernels, for the sanitizers (scripts/sanitize.ts). What they
// compute is not looked at here; ops.test.ts does that.

import type { Device } from "@open-infra/jit";
import { type DType, Tensor } from "@open-infra/tensor";
import { seededRandom } from "@open-infra/testing";
import type { RoutingConfig } from "../src/config.ts";
import type { ActDType } from "../src/ops/common.ts";
import { embed } from "../src/ops/embed.ts";
import { gatherRows } from "../src/ops/gather-rows.ts";
import { mlaPrepare } from "../src/ops/mla-prepare.ts";
import { residualNorm } from "../src/ops/residual-norm.ts";
import { route } from "../src/ops/route.ts";
import { siluMul } from "../src/ops/silu-mul.ts";

const random = seededRandom(11);

function normal<D extends DType>(shape: readonly number[], dtype: D): Tensor<D> {
  const count = shape.reduce((a, b) => a * b, 1);
  return Tensor.from(
    Array.from({ length: count }, () => random.normal()),
    shape,
    dtype,
  );
}
const f32 = (...shape: number[]): Tensor<"f32"> => normal(shape, "f32");
const i32 = (values: readonly number[], shape = [values.length]): Tensor<"i32"> =>
  Tensor.from(values, shape, "i32");

function embedding(dtype: "f32" | "bf16" | "f16"): (device: Device) => void {
  return (device) => {
    for (const hidden of [1, 17, 129]) {
      const table = normal([11, hidden], dtype);
      device.run(embed, { ids: i32([10, 0, 3]), table, out: Tensor.empty([3, hidden], "f32") });
    }
  };
}

function norm(dtype: ActDType): (device: Device) => void {
  return (device) => {
    for (const [tokens, hidden, topK] of [
      [1, 5, 1],
      [3, 67, 2],
      [9, 130, 3],
    ] as const) {
      const order = Array.from({ length: tokens * topK }, (_, i) => i);
      device.run(residualNorm, {
        h: f32(tokens, hidden),
        weight: f32(hidden),
        eps: 1e-6,
        delta: f32(tokens, hidden),
        experts: {
          rows: f32(tokens * topK, hidden),
          positions: i32(order, [tokens, topK]),
          weights: f32(tokens, topK),
        },
        out: Tensor.empty([tokens, hidden], dtype),
        outF32: Tensor.empty([tokens, hidden], "f32"),
      });
    }
  };
}

function mla(dtype: ActDType): (device: Device) => void {
  return (device) => {
    for (const [tokens, heads, nope, rope, rank, interleaved] of [
      [1, 1, 3, 2, 5, true],
      [4, 2, 19, 6, 33, false],
    ] as const) {
      const slots = Array.from({ length: tokens }, (_, t) => t * 2 + 1);
      device.run(mlaPrepare, {
        q: f32(tokens, heads * (nope + rope)),
        kv: f32(tokens, rank + rope),
        kvNorm: f32(rank),
        eps: 1e-6,
        cos: f32(16, rope / 2),
        sin: f32(16, rope / 2),
        positions: i32(slots.map((slot) => (slot * 7) % 16)),
        slots: i32(slots),
        cache: Tensor.empty([1, 8, 1, rank + rope], dtype),
        qNope: Tensor.empty([tokens, heads, nope], dtype),
        qLatent: Tensor.empty([tokens, heads, rank + rope], dtype),
        interleaved,
      });
    }
  };
}

function gated(dtype: ActDType): (device: Device) => void {
  return (device) => {
    for (const [rows, width, upOffset] of [
      [1, 1, 1],
      [3, 67, 128],
    ] as const) {
      const out = Tensor.empty([rows, width], dtype);
      device.run(siluMul, { x: f32(rows, upOffset + width), upOffset, out });
    }
  };
}

function gather(device: Device): void {
  const second = { rows: f32(9, 2), out: Tensor.empty([4, 2], "f32") };
  const out = Tensor.empty([4, 37], "f32");
  device.run(gatherRows, { index: i32([8, 0, 0, 5]), rows: f32(9, 37), out, second });
}

const rule: RoutingConfig = {
  scoring: "softmax",
  method: "greedy",
  experts: 7,
  expertsPerToken: 7,
  groups: 1,
  groupsPerToken: 1,
  normalise: true,
  scale: 1,
  scaleNormalised: true,
};
const groups = { experts: 24, expertsPerToken: 5, groups: 6, groupsPerToken: 3 };
const rules: readonly RoutingConfig[] = [
  rule,
  { ...rule, ...groups, method: "group_limited_greedy" },
  { ...rule, ...groups, method: "noaux_tc", scoring: "sigmoid" },
];

function routing(device: Device): void {
  for (const one of rules) {
    for (const tokens of [1, 7, 70]) {
      const { experts, expertsPerToken: k } = one;
      const bias = one.method === "noaux_tc" ? f32(experts) : undefined;
      device.run(route, {
        logits: f32(tokens, experts),
        bias,
        routing: one,
        ids: Tensor.empty([tokens, k], "i32"),
        weights: Tensor.empty([tokens, k], "f32"),
        offsets: Tensor.empty([experts + 1], "i32"),
        sources: Tensor.empty([tokens * k], "i32"),
        positions: Tensor.empty([tokens, k], "i32"),
      });
    }
  }
}

/** Calls by name; each makes its own tensors. */
export const kernelCases: Readonly<Record<string, (device: Device) => void>> = {
  "embed f32": embedding("f32"),
  "embed bf16": embedding("bf16"),
  "embed f16": embedding("f16"),
  "residual norm f32": norm("f32"),
  "residual norm bf16": norm("bf16"),
  "mla prepare f32": mla("f32"),
  "mla prepare bf16": mla("bf16"),
  "silu · mul": gated("bf16"),
  "gather rows": gather,
  route: routing,
};
