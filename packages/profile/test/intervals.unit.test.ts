// The algebra of time sets against a grid: every whole µs of small random sets marked one by one.

import {
  type Intervals,
  intersect,
  lengthOf,
  lengthWithin,
  sharedLength,
  subtract,
  UnionBuilder,
  unionOfPairs,
  unite,
} from "@open-infra/profile/analyze";
import { seededRandom, testSeed } from "@open-infra/testing";
import { describe, expect, it } from "vitest";

const GRID = 60;

function pairsOf(set: Intervals): number[][] {
  return Array.from({ length: set.length }, (_, i) => [
    set.bounds[2 * i] as number,
    set.bounds[2 * i + 1] as number,
  ]);
}

/** Which whole µs of the grid the set holds. */
function marks(set: Intervals): boolean[] {
  const out = new Array<boolean>(GRID).fill(false);
  for (const [start, end] of pairsOf(set) as [number, number][]) out.fill(true, start, end);
  return out;
}

function count(grid: readonly boolean[]): number {
  return grid.filter(Boolean).length;
}

/** Sorted, apart, none empty. */
function expectCanonical(set: Intervals, message: string): void {
  const flat = pairsOf(set).flat();
  expect(flat, message).toEqual([...new Set(flat)].sort((a, b) => a - b));
}

describe("time sets", () => {
  it("agree with a grid of marks", () => {
    const random = seededRandom(testSeed());
    for (let round = 0; round < 300; round++) {
      const message = `seed ${random.seed}, round ${round}`;
      const draw = (): [number, number][] =>
        Array.from({ length: random.int(0, 9) }, () => {
          const start = random.int(0, GRID);
          return [start, Math.min(GRID, start + random.int(0, 12))];
        });
      const pairsA = draw();
      const pairsB = draw();
      const a = unionOfPairs(pairsA);
      const b = unionOfPairs(pairsB);
      const drawn = new Array<boolean>(GRID).fill(false);
      for (const [start, end] of pairsA) drawn.fill(true, start, end);
      expect(marks(a), message).toEqual(drawn);
      const [x, y] = [marks(a), marks(b)];
      const sets: [Intervals, boolean[]][] = [
        [unite(a, b), x.map((on, i) => on || (y[i] as boolean))],
        [intersect(a, b), x.map((on, i) => on && (y[i] as boolean))],
        [subtract(a, b), x.map((on, i) => on && !y[i])],
      ];
      for (const [set, wanted] of sets) {
        expect(marks(set), message).toEqual(wanted);
        expect(lengthOf(set), message).toBe(count(wanted));
        expectCanonical(set, message);
      }
      expect(sharedLength(a, b), message).toBe(count(sets[1]?.[1] as boolean[]));
      const from = random.int(0, GRID);
      const to = random.int(from, GRID + 1);
      expect(lengthWithin(a, from, to), message).toBe(count(x.slice(from, to)));
    }
  });

  it("merge what touches, drop what is empty, keep fractions", () => {
    const builder = new UnionBuilder(1);
    builder.add(1.5, 1.5);
    builder.add(2, 3.25);
    builder.add(3.25, 4);
    builder.add(3.5, 3.75);
    builder.add(9, 10.5);
    const set = builder.done();
    expect(pairsOf(set)).toEqual([
      [2, 4],
      [9, 10.5],
    ]);
    expect(lengthOf(set)).toBe(3.5);
  });

  it("grow beyond their first capacity", () => {
    const builder = new UnionBuilder(1);
    for (let i = 0; i < 1000; i++) builder.add(2 * i, 2 * i + 1);
    expect(lengthOf(builder.done())).toBe(1000);
  });
});
