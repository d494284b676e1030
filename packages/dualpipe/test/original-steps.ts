// The eight steps of the original as words, for tests: an independent way to the same lists. `F0`
// is a forward of slot 0, `X1` a backward that step 6 turns from B to I, `M01` forward 0
// overlapped with backward 1; `rF0` posts a receive and `sB1` a send, which vanish where nothing
// crosses ranks.

import type { OpInput, OpKindName } from "../src/index.ts";

interface Slot {
  readonly direction: number;
  readonly stage: number;
  /** Whether the stage before, and the one after, are on other ranks. */
  readonly before: boolean;
  readonly after: boolean;
}

export interface RankProgram {
  readonly slots: readonly [Slot, Slot];
  readonly counts: readonly number[];
  readonly middle: boolean;
  readonly depth: number;
}

const repeat = (words: string, count: number): string => `${words} `.repeat(count);

function words({ counts, middle }: RankProgram): string {
  const [n1, n2, n3, n4, n5, n6, n7, n8] = counts as [
    number,
    number,
    number,
    number,
    number,
    number,
    number,
    number,
  ];
  const step2 = middle
    ? `${repeat("F0 sF0 rF0 rF1 F1 sF1", n2 - 1)} F0 sF0 rF0 rF1 F1`
    : repeat("F0 rF0 rF1 F1 sF1 sF0", n2);
  const first = middle ? "F0 sF1 rB1 B1 sF0 sB1" : "rB1 M01 sF0 sB1";
  const back = "rF1 rB0 M10 sF1 sB0";
  return [
    repeat("rF0 F0 sF0", n1),
    `rF0 ${step2}`,
    repeat("rB1 I1 sB1 rF1 W F1 sF1", n3),
    `${first} ${back}`,
    repeat(`rF0 rB1 M01 sF0 sB1 ${back}`, n4 - 1),
    repeat(`rB1 B1 sB1 ${back}`, n5),
    repeat("rB1 X1 sB1 rB0 X0 sB0", n6),
    repeat("W rB0 I0 sB0", n7),
    repeat("W", n8),
  ].join(" ");
}

/** One rank's operations with transfers; those between two cells in any order. */
export function originalOps(program: RankProgram): OpInput[] {
  const { slots, counts, depth } = program;
  const next = new Map<string, number>();
  const take = (key: string): number => {
    const n = next.get(key) ?? 0;
    next.set(key, n + 1);
    return n;
  };
  const waiting: OpInput[] = [];
  let backwards = 0;
  // The cells of step 6 in order: B until half of them are done, rounded by the depth's parity.
  const full = 2 * Math.floor((counts[5] as number) / 2) + (depth % 2 === 0 ? 1 : 0);
  const ops: OpInput[] = [];
  const cell = (kind: OpKindName, key: string, index: number): OpInput => {
    const { direction, stage } = slots[index] as Slot;
    return { kind, direction, stage, microBatch: take(`${key}${index}`) };
  };
  for (const word of words(program).split(/\s+/).filter(Boolean)) {
    const [head = "", a = "", b = ""] = word;
    if (head === "r" || head === "s") {
      const slot = slots[Number(b)] as Slot;
      const before = (head === "r") === (a === "F");
      const op = cell(`${head === "r" ? "Recv" : "Send"}${a}` as OpKindName, word.slice(0, 2), +b);
      if (before ? slot.before : slot.after) ops.push(op);
    } else if (head === "W") {
      ops.push({ ...(waiting.shift() as OpInput), kind: "W" });
    } else if (head === "M") {
      const { direction, stage, microBatch } = cell("B", "B", Number(b));
      ops.push({ ...cell("FB", "F", Number(a)), pair: { direction, stage, microBatch } });
    } else if (head === "F") ops.push(cell("F", "F", Number(a)));
    else {
      const kind = head === "X" ? (backwards++ < full ? "B" : "I") : (head as "B" | "I");
      const op = cell(kind, "B", Number(a));
      if (kind === "I") waiting.push(op);
      ops.push(op);
    }
  }
  return ops;
}
