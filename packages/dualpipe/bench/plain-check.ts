// The plain way to check a schedule: operations as objects, what is done as names in a set. The
// bench compares the validator with it. It knows cells only, no transfers.

import { type Op, opAt, type Schedule } from "../src/index.ts";

const name = (kind: string, d: number, s: number, m: number): string => `${kind} ${d} ${s} ${m}`;

/** Whether every rank comes to its end, each operation after what it needs. */
export function plainCheck(schedule: Schedule): boolean {
  const done = new Set<string>();
  const last = schedule.numStages - 1;
  const ready = (kind: string, d: number, s: number, m: number): boolean => {
    if (kind === "F") return s === 0 || done.has(name("F", d, s - 1, m));
    if (kind === "W") return done.has(name("B", d, s, m));
    return done.has(name("F", d, s, m)) && (s === last || done.has(name("B", d, s + 1, m)));
  };
  const run = (op: Op): boolean => {
    const { kind, direction, stage, microBatch, pair } = op;
    const first = kind === "FB" ? "F" : kind;
    if (!ready(first, direction, stage, microBatch)) return false;
    if (pair && !ready("B", pair.direction, pair.stage, pair.microBatch)) return false;
    if (kind !== "W") done.add(name(first === "F" ? "F" : "B", direction, stage, microBatch));
    if (pair) done.add(name("B", pair.direction, pair.stage, pair.microBatch));
    return true;
  };
  const lists = schedule.ranks.map((ops) =>
    Array.from({ length: ops.length }, (_, i) => opAt(ops, i)),
  );
  const at = lists.map(() => 0);
  for (let moved = true; moved; ) {
    moved = false;
    lists.forEach((list, rank) => {
      for (let op = list[at[rank] as number]; op && run(op); op = list[at[rank] as number]) {
        at[rank] = (at[rank] as number) + 1;
        moved = true;
      }
    });
  }
  return lists.every((list, rank) => at[rank] === list.length);
}
