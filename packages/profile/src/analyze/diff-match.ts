// Finds each kernel of one trace in another: by its name, else by its short name (a template's
// arguments changed), else as the only one of its class that is left on both sides. What stays
// without a partner was added or removed.

import type { NameBreakdown } from "./kernels.ts";
import { shortName } from "./short-name.ts";

/** A kernel before and after; one side is missing where it has no partner. */
export interface KernelMatch {
  readonly before: NameBreakdown | undefined;
  readonly after: NameBreakdown | undefined;
}

type Key = (kernel: NameBreakdown) => string;

/** The rules in order; each pairs only what is unique under its key on both sides. */
const keys: readonly Key[] = [
  ({ name, class: className, variant }) => JSON.stringify([name, className, variant]),
  ({ name }) => name,
  ({ name, class: className }) => JSON.stringify([shortName(name), className]),
  ({ class: className, variant, count }) => JSON.stringify([className, variant, count]),
  ({ class: className, variant }) => JSON.stringify([className, variant]),
];

/** Pairs the kernels of two traces, in an order that depends on names alone. */
export function matchKernels(
  before: readonly NameBreakdown[],
  after: readonly NameBreakdown[],
): readonly KernelMatch[] {
  const matches: KernelMatch[] = [];
  let left = before;
  let right = after;
  for (const key of keys) {
    const lefts = groupBy(left, key);
    const rights = groupBy(right, key);
    const paired = new Set<NameBreakdown>();
    for (const [value, mine] of lefts) {
      const theirs = rights.get(value);
      if (mine.length !== 1 || theirs?.length !== 1) continue;
      matches.push({ before: mine[0], after: theirs[0] });
      paired.add(mine[0]!).add(theirs[0]!);
    }
    left = left.filter((kernel) => !paired.has(kernel));
    right = right.filter((kernel) => !paired.has(kernel));
  }
  for (const kernel of left) matches.push({ before: kernel, after: undefined });
  for (const kernel of right) matches.push({ before: undefined, after: kernel });
  return matches;
}

function groupBy(
  kernels: readonly NameBreakdown[],
  key: Key,
): ReadonlyMap<string, readonly NameBreakdown[]> {
  const groups = new Map<string, NameBreakdown[]>();
  for (const kernel of kernels) {
    const value = key(kernel);
    const group = groups.get(value);
    if (group === undefined) groups.set(value, [kernel]);
    else group.push(kernel);
  }
  return groups;
}
