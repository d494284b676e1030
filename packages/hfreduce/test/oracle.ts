// What a collective must give, to the bit: the documented order of additions, one rounding at a
// time, in plain numbers. Written from README.md's rules, not from the kernels.

import { type DType, Tensor } from "@open-infra/tensor";
import { doubleTree, laneCount, type Members, rootedTrees, type Tree } from "../src/topology.ts";

export type Op = "sum" | "avg" | "max" | "min";

/** What is known of an operation. */
export interface OracleCase {
  readonly dtype: DType;
  readonly op: Op;
  readonly algorithm: "small" | "tree" | "ring";
  readonly wire: "accumulator" | "dtype";
  readonly devices: number;
  readonly members: Members;
  /** Member index of the root of a reduce; else undefined. */
  readonly root?: number;
}

type Numbers = Float64Array;

function rounder(dtype: DType): (x: number) => number {
  if (dtype === "f64") return (x) => x;
  if (dtype === "i32") return (x) => x | 0;
  if (dtype === "i64") return (x) => x;
  return Math.fround;
}

/** Rounds to a dtype and back. */
export function throughDtype(dtype: DType, values: ArrayLike<number>): Numbers {
  return Tensor.from(values, [values.length], dtype).toFloat64();
}

function combine(op: Op, round: (x: number) => number, a: number, b: number): number {
  if (op === "max") return b > a || Number.isNaN(b) ? b : a;
  if (op === "min") return b < a || Number.isNaN(b) ? b : a;
  return round(a + b);
}

/** One element: what each member's devices bring, in order, to one number. */
function reduceElement(
  c: OracleCase,
  brings: (member: number, device: number) => number,
  place: { readonly tree?: Tree; readonly segment?: number },
): number {
  const round = rounder(c.dtype);
  const { members, devices, op } = c;
  const onWire = (x: number): number =>
    c.wire === "dtype" ? (throughDtype(c.dtype, [x])[0] as number) : x;
  const ofMember = (m: number): number => {
    let sum = brings(m, 0);
    for (let d = 1; d < devices; d++) sum = combine(op, round, sum, brings(m, d));
    return sum;
  };
  const inOrder = (from: number, to: number): number => {
    let sum = ofMember(from);
    for (let m = from + 1; m < to; m++) sum = combine(op, round, sum, ofMember(m));
    return sum;
  };
  const nodes = members.nodeStart.length - 1;
  const ofNode = (x: number): number =>
    inOrder(members.nodeStart[x] as number, members.nodeStart[x + 1] as number);
  let sum: number;
  if (c.algorithm === "small" || nodes === 1) {
    sum = inOrder(0, members.ranks.length);
  } else if (place.tree !== undefined) {
    const { parent, children } = place.tree;
    const up = (x: number): number => {
      let total = ofNode(x);
      for (const child of children[x] as number[])
        total = combine(op, round, total, onWire(up(child)));
      return total;
    };
    sum = up(parent.indexOf(-1));
  } else {
    const segment = place.segment as number;
    sum = ofNode((segment + 1) % nodes);
    for (let i = 2; i <= nodes; i++) {
      const mine = ofNode((segment + i) % nodes);
      sum = combine(op, round, mine, onWire(sum));
    }
  }
  return op === "avg" ? round(sum / (members.ranks.length * devices)) : sum;
}

/** Where element `i` of `count` lies among `pieces`, cut at multiples of 64. */
function pieceOf(count: number, pieces: number, i: number): number {
  const each = Math.ceil(Math.ceil(count / pieces) / 64) * 64;
  return Math.floor(i / each);
}

/** The result of an allreduce or reduce of `count` elements, after its one rounding. */
export function reduced(
  c: OracleCase,
  count: number,
  brings: (member: number, device: number, i: number) => number,
): Numbers {
  const nodes = c.members.nodeStart.length - 1;
  const lanes = laneCount(c.members);
  const trees =
    c.root === undefined
      ? doubleTree(nodes)
      : rootedTrees(
          nodes,
          c.members.nodeStart.findLastIndex((s) => s <= (c.root as number)),
        );
  const values = Float64Array.from({ length: count }, (_, i) => {
    const at = (member: number, device: number): number => brings(member, device, i);
    if (c.algorithm === "ring") {
      return reduceElement(c, at, { segment: pieceOf(count, lanes * nodes, i) % nodes });
    }
    const branch = pieceOf(count, lanes * 2, i) % 2;
    return reduceElement(c, at, { tree: trees[branch] as Tree });
  });
  return throughDtype(c.dtype, values);
}

/** The block of member `m`, device `d`, of a reduce-scatter. */
export function scattered(
  c: OracleCase,
  count: number,
  block: number,
  brings: (member: number, device: number, i: number) => number,
): Numbers {
  const member = Math.floor(block / c.devices);
  const node = c.members.nodeStart.findLastIndex((s) => s <= member);
  const values = Float64Array.from({ length: count }, (_, i) =>
    reduceElement(c, (m, d) => brings(m, d, block * count + i), { segment: node }),
  );
  return throughDtype(c.dtype, values);
}
