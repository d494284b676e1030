// The original's einsums: products of stacks of matrices that are called by their subscripts. Each
// is a view of its operands and one call.

import type { Device } from "@open-infra/jit";
import { type Dims, DTypeError, expectTensor, type Tensor } from "@open-infra/tensor";
import type { CallKind } from "./call.ts";
import { type GemmOptions, launch, launchFp8, type Output } from "./deepgemm.ts";
import { ArgumentError } from "./errors.ts";
import {
  dataName,
  dataOf,
  defaultGrains,
  type Grains,
  isScaled,
  type Operand,
  type RecipeOptions,
  rowGrains,
  type ScaledTensor,
  viewOf,
} from "./operand.ts";

/** Operands and result of {@link einsum}. */
export interface EinsumArgs extends GemmOptions {
  readonly a: Operand;
  readonly b: Operand;
  readonly d: Output;
  /** Added, of d's type and shape; may be d. */
  readonly c?: Tensor | undefined;
}

/** Operands and result of {@link fp8Einsum}. */
export interface Fp8EinsumArgs extends EinsumArgs, RecipeOptions {
  readonly a: ScaledTensor;
  readonly b: ScaledTensor;
}

interface Plan {
  readonly kind: CallKind;
  readonly a: (tensor: Tensor) => Tensor;
  readonly b: (tensor: Tensor) => Tensor;
  readonly d: (tensor: Tensor) => Tensor;
  readonly grains: Grains;
}

const same = (tensor: Tensor): Tensor => tensor;

const plans: ReadonlyMap<string, Plan> = new Map<string, Plan>([
  ["bmk,bnk->mn", { kind: "summed", a: same, b: same, d: same, grains: defaultGrains }],
  ["bhr,hdr->bhd", { kind: "batched", a: same, b: same, d: same, grains: defaultGrains }],
  [
    "bhd,hdr->bhr",
    { kind: "batched", a: same, b: (t) => t.transpose(1, 2), d: same, grains: defaultGrains },
  ],
  [
    "bhd,bhr->hdr",
    {
      kind: "batched",
      a: (t) => t.transpose(0, 2),
      b: (t) => t.transpose(0, 1).transpose(1, 2),
      d: (t) => t.transpose(0, 1),
      grains: rowGrains,
    },
  ],
]);

const plainExpressions = ["bmk,bnk->mn", "bhr,hdr->bhd", "bhd,hdr->bhr"];
const fp8Expressions = ["bhr,hdr->bhd", "bhd,hdr->bhr", "bhd,bhr->hdr"];

/**
 * `bmk,bnk->mn`: d[m,n] = Σ over b of a[b] · b[b]ᵀ, always added in the order of b. `bhr,hdr->bhd`:
 * d[b,h] = a[b,h] · b[h]ᵀ. `bhd,hdr->bhr`: d[b,h] = a[b,h] · b[h]. Strides of all but one dimension
 * are free (DeepGEMM `einsum`, and `fp8_einsum` where operands have scales).
 *
 * @throws ArgumentError for any other expression; ShapeError, DTypeError.
 */
export function einsum(device: Device, expression: string, args: EinsumArgs): void {
  const plan = planOf("einsum", expression, plainExpressions);
  checkLetters("einsum", expression, args);
  const { a, b, d, c } = viewed(args, plan);
  launch(device, "einsum", plan.kind, { ...args, a, b, d, c }, { grains: plan.grains });
}

/**
 * Of e4m3 with scales, by the same subscripts, but without `bmk,bnk->mn`. `bhr,hdr->bhd` and
 * `bhd,hdr->bhr`, recipe (1, 128, 128): a's scales [B, H, ceil(K/128)], b's [H, ceil(D/128),
 * ceil(R/128)]. `bhd,bhr->hdr`, recipe (1, 1, 128): a scale for each 128 b, [ceil(B/128), H, D] and
 * [ceil(B/128), H, R] (DeepGEMM `fp8_einsum`).
 */
export function fp8Einsum(device: Device, expression: string, args: Fp8EinsumArgs): void {
  const plan = planOf("fp8Einsum", expression, fp8Expressions);
  for (const [name, operand] of [["a", args.a] as const, ["b", args.b] as const]) {
    if (isScaled(operand)) continue;
    const got = dataOf(operand as Operand).dtype;
    throw new DTypeError("fp8Einsum", name, got, "{data: e4m3fn, scales: f32}");
  }
  checkLetters("fp8Einsum", expression, args);
  const { a, b, d, c } = viewed(args, plan);
  launchFp8(device, "fp8Einsum", plan.kind, { ...args, a, b, d, c }, { grains: plan.grains });
}

function planOf(operation: string, expression: string, allowed: readonly string[]): Plan {
  const spaceless = expression.replaceAll(" ", "");
  const plan = allowed.includes(spaceless) ? plans.get(spaceless) : undefined;
  if (plan !== undefined) return plan;
  const list = allowed.map((e) => `'${e}'`).join(" or ");
  throw new ArgumentError(operation, "expression", `'${expression}'`, list);
}

/** Shapes as the subscripts say, so that messages name what the caller wrote. */
function checkLetters(operation: string, expression: string, args: EinsumArgs): void {
  const letters = expression.replaceAll(" ", "").toUpperCase().split(/,|->/);
  const [a = "", b = "", d = ""] = letters;
  const dims: Dims = {};
  const check = (name: string, tensor: Tensor, pattern: string): void => {
    expectTensor(operation, name, tensor, [tensor.dtype], [...pattern], dims);
  };
  check(dataName("a", args.a), dataOf(args.a), a);
  check(dataName("b", args.b), dataOf(args.b), b);
  const gated = args.epilogue?.activation !== undefined;
  const result = gated ? d.slice(0, -1) : d;
  const out = dataOf(args.d);
  if (gated) check("d", out.select(out.rank - 1, 0), result);
  else check(dataName("d", args.d), out, d);
  if (args.c !== undefined) check("c", args.c, d);
}

function viewed({ a, b, d, c }: EinsumArgs, plan: Plan): Pick<EinsumArgs, "a" | "b" | "d" | "c"> {
  return {
    a: viewOf(a, plan.a),
    b: viewOf(b, plan.b),
    d: viewOf(d, plan.d),
    c: c === undefined ? undefined : plan.d(c),
  };
}
