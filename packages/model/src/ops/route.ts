// The router: which experts a token goes to, with what weight, and the (token, expert) pairs sorted
// by expert for the grouped GEMM. The rules are those of DeepSeek's MoEGate (V2 and V3).

import { defineKernel, type Operation } from "@open-infra/jit";
import {
  type Dims,
  expectContiguous,
  expectTensor,
  ShapeError,
  type Tensor,
} from "@open-infra/tensor";
import type { RoutingConfig } from "../config.ts";
import { kernelUrl, threadsFor, write } from "./common.ts";

export interface RouteArgs {
  /** f32 [T, E]: the gate's output. */
  readonly logits: Tensor<"f32">;
  /** f32 [E]: e_score_correction_bias; it moves the choice, never the weights. */
  readonly bias?: Tensor<"f32"> | undefined;
  readonly routing: RoutingConfig;
  /** i32 [T, K], best first; ties go to the lower index. */
  readonly ids: Tensor<"i32">;
  /** f32 [T, K] */
  readonly weights: Tensor<"f32">;
  /** i32 [E + 1]: rows offsets[e] … offsets[e + 1] belong to expert e. */
  readonly offsets: Tensor<"i32">;
  /** i32 [T·K]: the token of each row. */
  readonly sources: Tensor<"i32">;
  /** i32 [T, K]: the row of each choice. */
  readonly positions: Tensor<"i32">;
}

const name = "route";

function check(args: RouteArgs): void {
  const { logits, bias, ids, weights, offsets, sources, positions, routing } = args;
  const dims: Dims = {};
  expectTensor(name, "logits", logits, ["f32"], ["T", routing.experts], dims);
  if (bias !== undefined) expectTensor(name, "bias", bias, ["f32"], [routing.experts], dims);
  expectTensor(name, "ids", ids, ["i32"], ["T", routing.expertsPerToken], dims);
  expectTensor(name, "weights", weights, ["f32"], ["T", routing.expertsPerToken], dims);
  expectTensor(name, "positions", positions, ["i32"], ["T", routing.expertsPerToken], dims);
  expectTensor(name, "offsets", offsets, ["i32"], [routing.experts + 1], dims);
  expectTensor(name, "sources", sources, ["i32"], [ids.size], dims);
  for (const tensor of [logits, ids, weights, positions, offsets, sources]) {
    expectContiguous(name, tensor.label, tensor);
  }
  const free = (routing.experts / routing.groups) * routing.groupsPerToken;
  if (routing.expertsPerToken > free) {
    const got = `${routing.expertsPerToken} experts a token`;
    throw new ShapeError(name, "routing", got, `at most ${free} by groups`);
  }
}

/** Indices of the k largest, best first, the lower index of equals. */
function topK(values: ArrayLike<number>, k: number): number[] {
  const order = Array.from({ length: values.length }, (_, i) => i);
  return order.sort((a, b) => values[b]! - values[a]! || a - b).slice(0, k);
}

function scoresOf(logits: Float64Array, scoring: RoutingConfig["scoring"]): Float64Array {
  if (scoring === "sigmoid") return logits.map((x) => 1 / (1 + Math.exp(-x)));
  const top = Math.max(...logits);
  const powers = logits.map((x) => Math.exp(x - top));
  const sum = powers.reduce((a, b) => a + b, 0);
  return powers.map((x) => x / sum);
}

/** The experts of one token by the obvious algorithm; -Infinity rules out what groups exclude. */
function chooseExperts(choice: Float64Array, routing: RoutingConfig): number[] {
  const { method, groups, groupsPerToken, expertsPerToken, experts } = routing;
  if (method === "greedy") return topK(choice, expertsPerToken);
  const size = experts / groups;
  const groupScores = Array.from({ length: groups }, (_, g) => {
    const own = choice.slice(g * size, (g + 1) * size).sort();
    const best = own[size - 1]!;
    return method === "noaux_tc" && size > 1 ? best + own[size - 2]! : best;
  });
  const kept = new Set(topK(groupScores, groupsPerToken));
  const limited = choice.map((x, e) => (kept.has(Math.floor(e / size)) ? x : -Infinity));
  return topK(limited, expertsPerToken);
}

function reference(args: RouteArgs): void {
  const { routing, ids, weights, offsets, sources, positions } = args;
  const k = routing.expertsPerToken;
  const bias = args.bias?.toFloat64();
  const chosen: number[] = [];
  for (let t = 0; t < args.logits.dim(0); t++) {
    const scores = scoresOf(args.logits.select(0, t).toFloat64(), routing.scoring);
    const experts = chooseExperts(bias ? scores.map((x, e) => x + bias[e]!) : scores, routing);
    const own = experts.map((e) => scores[e]!);
    const sum = own.reduce((a, b) => a + b, 0) + 1e-20;
    const scale = scaleOf(routing);
    write(
      weights.select(0, t),
      own.map((x) => (routing.normalise ? x / sum : x) * scale),
    );
    chosen.push(...experts);
  }
  write(ids, chosen);
  const order = Array.from(chosen, (_, pair) => pair);
  order.sort((a, b) => chosen[a]! - chosen[b]! || a - b);
  order.forEach((pair, row) => {
    sources.raw()[row] = Math.floor(pair / k);
    positions.raw()[pair] = row;
  });
  for (let e = 0; e <= routing.experts; e++) {
    offsets.raw()[e] = chosen.filter((expert) => expert < e).length;
  }
}

/** V3 scales always; V2's own code scales only weights that it does not normalise. */
function scaleOf(routing: RoutingConfig): number {
  return routing.normalise && !routing.scaleNormalised ? 1 : routing.scale;
}

const methods = { greedy: 0, group_limited_greedy: 1, noaux_tc: 2 };
const scorings = { softmax: 0, sigmoid: 1 };

/** Chooses experts (MoEGate) and sorts the choices by expert. */
export const route: Operation<RouteArgs> = {
  name,
  check,
  reference,
  kernels: {
    cpu: defineKernel({
      language: "c",
      source: kernelUrl("route.c"),
      entry: "route",
      params: {
        logits: "ptr",
        bias: "ptr",
        ids: "ptr",
        weights: "ptr",
        offsets: "ptr",
        sources: "ptr",
        positions: "ptr",
        tokens: "i64",
        experts: "i64",
        top_k: "i64",
        groups: "i64",
        groups_per_token: "i64",
        normalise: "i64",
        scale: "f64",
      },
      constants: ({ routing }: RouteArgs) => ({
        METHOD: methods[routing.method],
        SCORING: scorings[routing.scoring],
      }),
      pack: ({ logits, bias, routing, ids, weights, offsets, sources, positions }) => ({
        logits,
        bias: bias ?? null,
        ids,
        weights,
        offsets,
        sources,
        positions,
        tokens: logits.dim(0),
        experts: routing.experts,
        top_k: routing.expertsPerToken,
        groups: routing.groups,
        groups_per_token: routing.groupsPerToken,
        normalise: routing.normalise ? 1 : 0,
        scale: scaleOf(routing),
      }),
      threads: ({ logits }, target) =>
        Math.min(logits.dim(0), threadsFor(logits.size * 16, target)),
      scratchBytes: ({ routing }) => routing.experts * 9 + routing.groups * 5 + 64,
    }),
  },
};
