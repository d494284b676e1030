// Rows and the raster of the trace page: nesting, and every pixel against a slow raster that looks
// at all slices.

import { EventTableBuilder } from "@open-infra/profile/analyze";
import { type Random, seededRandom, testSeed } from "@open-infra/testing";
import { describe, expect, it } from "vitest";
import {
  LabelList,
  rasterMatches,
  rasterRow,
  SHADES,
} from "../web/src/pages/trace/timeline/raster.ts";
import {
  enclosingSlot,
  laneOfRow,
  layRows,
  longestSlot,
  NONE,
  rowOfSlot,
  type SliceRows,
  slotAt,
} from "../web/src/pages/trace/timeline/rows.ts";

type Span = readonly [tid: number, start: number, duration: number, name?: string];

function rowsOf(spans: readonly Span[]): SliceRows {
  const builder = new EventTableBuilder();
  for (const [tid, startUs, durationUs, name = "x"] of spans) {
    builder.add({ pid: 1, tid, startUs, durationUs, name });
  }
  return layRows(builder.finish({}));
}

/** Depth of every span, in the order given. */
function depthsOf(spans: readonly Span[]): number[] {
  const rows = rowsOf(spans);
  return spans.map((_, event) => {
    const row = rowOfSlot(rows, rows.slotOf[event] as number);
    return row - (rows.laneRow[laneOfRow(rows, row)] as number);
  });
}

describe("layRows", () => {
  it("stacks by nesting, whatever the order of the file", () => {
    const spans: Span[] = [
      [1, 12, 3],
      [1, 0, 100],
      [1, 10, 40],
      [1, 60, 40],
      [1, 100, 5],
      [2, 0, 5],
      [1, 0, 100],
    ];
    expect(depthsOf(spans)).toEqual([3, 0, 2, 2, 0, 0, 1]);
  });

  it("puts what overlaps without nesting side by side", () => {
    expect(
      depthsOf([
        [1, 0, 10],
        [1, 5, 10],
        [1, 11, 10],
      ]),
    ).toEqual([0, 1, 0]);
  });

  it("takes the rounding of clocks for what it is", () => {
    const third = 1 / 3;
    expect(
      depthsOf([
        [1, 0, third * 3 + 4e-4],
        [1, 1, 1],
      ]),
    ).toEqual([0, 0]);
    // A quarter of a microsecond is one step of a float64 of microseconds since 1970.
    expect(
      depthsOf([
        [1, 0, 10.25],
        [1, 10, 10],
      ]),
    ).toEqual([0, 0]);
    expect(
      depthsOf([
        [1, 0, 10],
        [1, 9.9, 0.1],
      ]),
    ).toEqual([0, 1]);
    expect(
      depthsOf([
        [1, 0, 12],
        [1, 10, 10],
      ]),
    ).toEqual([0, 1]);
  });

  it("keeps moments, and leaves flows and counters out", () => {
    const builder = new EventTableBuilder();
    builder.add({ pid: 1, tid: 1, startUs: 0, durationUs: 5, name: "a" });
    builder.add({ phase: "i", pid: 1, tid: 1, startUs: 2, name: "now" });
    builder.add({ phase: "s", pid: 1, tid: 1, startUs: 2, name: "f", flowId: 1 });
    builder.add({ phase: "C", pid: 1, tid: 1, startUs: 2, name: "c" });
    const rows = layRows(builder.finish({}));
    expect([...rows.event]).toEqual([0, 1]);
    expect([...rows.slotOf]).toEqual([0, 1, NONE, NONE]);
  });

  it("has no rows for an empty trace", () => {
    const rows = rowsOf([]);
    expect(rows.start.length).toBe(0);
    expect([...rows.rowOffset]).toEqual([0]);
  });
});

/** Slices of random lengths, nested and not, dense and sparse. */
function randomSpans(random: Random, count: number): Span[] {
  return Array.from({ length: count }, () => {
    const start = random.int(0, 4000) / 4;
    const long = random.next() < 0.1;
    return [random.int(1, 3), start, random.int(0, long ? 800 : 12) / 4] as const;
  });
}

describe("a random trace", () => {
  const seed = testSeed();

  it("has rows of disjoint slices in order, each slice once", () => {
    const random = seededRandom(seed);
    for (let round = 0; round < 20; round++) {
      const spans = randomSpans(random, random.int(1, 400));
      const rows = rowsOf(spans);
      const message = `seed ${seed}, round ${round}`;
      expect(new Set(rows.event).size, message).toBe(spans.length);
      for (let row = 0; row + 1 < rows.rowOffset.length; row++) {
        let busy = 0;
        for (let slot = rows.rowOffset[row]!; slot < rows.rowOffset[row + 1]!; slot++) {
          expect(rows.busyBefore[slot], message).toBeCloseTo(busy, 6);
          busy += rows.end[slot]! - rows.start[slot]!;
          if (slot > rows.rowOffset[row]!) {
            expect(rows.start[slot], message).toBeGreaterThanOrEqual(rows.start[slot - 1]!);
            expect(rows.end[slot - 1], message).toBeLessThanOrEqual(rows.start[slot]! + 0.5);
          }
        }
      }
    }
  });

  it("knows the longest slice of any range", () => {
    const random = seededRandom(seed + 1);
    const rows = rowsOf(randomSpans(random, 700));
    for (let round = 0; round < 500; round++) {
      const from = random.int(0, 699);
      const to = random.int(from + 1, 701);
      let best = from;
      for (let slot = from; slot < to; slot++) {
        const us = rows.end[slot]! - rows.start[slot]!;
        if (us > rows.end[best]! - rows.start[best]!) best = slot;
      }
      expect(longestSlot(rows, from, to), `seed ${seed}: ${from} to ${to}`).toBe(best);
    }
  });

  it("finds the slice at a time as a walk over all does", () => {
    const random = seededRandom(seed + 2);
    const spans = randomSpans(random, 300);
    const rows = rowsOf(spans);
    for (let round = 0; round < 500; round++) {
      const row = random.int(0, rows.rowOffset.length - 1);
      const timeUs = random.int(0, 5000) / 5;
      const slackUs = random.next() * 4;
      let best = NONE;
      let least = slackUs;
      for (let slot = rows.rowOffset[row]!; slot < rows.rowOffset[row + 1]!; slot++) {
        const away = Math.max(rows.start[slot]! - timeUs, timeUs - rows.end[slot]!, 0);
        if (away <= least && !(away === least && best !== NONE)) {
          best = slot;
          least = away;
        }
      }
      const found = slotAt(rows, row, timeUs, slackUs);
      const message = `seed ${seed}, round ${round}`;
      if (best === NONE) expect(found, message).toBe(NONE);
      else {
        const away = (slot: number): number =>
          Math.max(rows.start[slot]! - timeUs, timeUs - rows.end[slot]!, 0);
        expect(found, message).not.toBe(NONE);
        expect(away(found), message).toBeCloseTo(away(best), 9);
      }
    }
  });
});

/** Colours 0 to 3 as pixels that name colour and shade: `100 * color + shade`. */
const shades = Uint32Array.from({ length: 4 * SHADES }, (_, index) => {
  return 100 * Math.floor(index / SHADES) + (index % SHADES) + 1;
});

/** Share of a pixel that a row covers, by looking at every slice. */
function coveredShare(rows: SliceRows, row: number, from: number, to: number): number {
  let us = 0;
  for (let slot = rows.rowOffset[row]!; slot < rows.rowOffset[row + 1]!; slot++) {
    us += Math.max(0, Math.min(rows.end[slot]!, to) - Math.max(rows.start[slot]!, from));
  }
  return us / (to - from);
}

describe("rasterRow", () => {
  const seed = testSeed();

  it("paints every pixel that is covered, and none that is far from a slice", () => {
    const random = seededRandom(seed + 3);
    for (let round = 0; round < 60; round++) {
      const rows = rowsOf(randomSpans(random, random.int(1, 600)));
      const colorOf = Uint8Array.from(rows.event, () => random.int(0, 4));
      const startUs = random.int(-50, 900);
      const widthPx = random.int(1, 300);
      const usPerPx = 2 ** random.int(-6, 4);
      const view = { startUs, usPerPx, widthPx };
      const message = `seed ${seed}, round ${round}`;
      for (let row = 0; row + 1 < rows.rowOffset.length; row++) {
        const line = new Uint32Array(widthPx);
        const count = rasterRow({ rows, view, colorOf, shades, line }, row);
        expect(count, message).toBeLessThanOrEqual(1.5 * widthPx + 2);
        for (let x = 0; x < widthPx; x++) {
          const from = startUs + x * usPerPx;
          // Edges of wide slices are rounded to pixels, hence half a pixel of doubt on each side.
          const certain = coveredShare(rows, row, from - usPerPx / 2, from + 1.5 * usPerPx);
          if (certain > 0.999) expect(line[x], `${message}, ${x}`).not.toBe(0);
          const near = slotAt(rows, row, from + usPerPx / 2, 1.01 * usPerPx);
          if (near === NONE) expect(line[x], `${message}, ${x}`).toBe(0);
        }
      }
    }
  });

  it("shades a pixel of many slices by the share they cover, in the colour of the longest", () => {
    const rows = rowsOf([
      [1, 0, 1],
      [1, 2, 3],
      [1, 6, 1],
      [1, 8, 2],
      [1, 40, 10],
    ]);
    const colorOf = Uint8Array.of(0, 1, 2, 3, 0);
    const line = new Uint32Array(6);
    const view = { startUs: 0, usPerPx: 10, widthPx: 6 };
    expect(rasterRow({ rows, view, colorOf, shades, line }, 0)).toBe(2);
    // 1 + 3 + 1 + 2 of 10 µs.
    expect([...line]).toEqual([100 + Math.round(0.7 * 31) + 1, 0, 0, 0, 32, 0]);
  });

  it("counts what reaches in from the pixel before", () => {
    const rows = rowsOf([
      [1, 0, 15],
      [1, 16, 2],
    ]);
    const line = new Uint32Array(2);
    const view = { startUs: 0, usPerPx: 10, widthPx: 2 };
    rasterRow({ rows, view, colorOf: new Uint8Array(2), shades, line }, 0);
    expect([...line]).toEqual([32, Math.round(0.7 * 31) + 1]);
  });

  it("lists the slices that have room for a name", () => {
    const rows = rowsOf([
      [1, 0, 40],
      [1, 41, 10],
      [1, 60, 200],
    ]);
    const labels = new LabelList();
    const view = { startUs: 10, usPerPx: 1, widthPx: 100 };
    const line = new Uint32Array(100);
    const colorOf = new Uint8Array(3);
    rasterRow({ rows, view, colorOf, shades, line, labels, labelFromPx: 30 }, 0);
    expect([labels.slots, labels.left, labels.right]).toEqual([
      [0, 2],
      [0, 50],
      [30, 100],
    ]);
  });

  it("never walks more than the pixels, however many slices", () => {
    const builder = new EventTableBuilder();
    for (let i = 0; i < 200_000; i++) {
      builder.add({ pid: 1, tid: 1, startUs: i * 3, durationUs: 2, name: "x" });
    }
    const rows = layRows(builder.finish({}));
    const colorOf = new Uint8Array(200_000);
    const line = new Uint32Array(1000);
    const view = { startUs: 0, usPerPx: 600, widthPx: 1000 };
    expect(rasterRow({ rows, view, colorOf, shades, line }, 0)).toBe(1000);
    // Two thirds covered everywhere: no pixel differs from its neighbours.
    expect(new Set(line)).toEqual(new Set([Math.round((2 / 3) * 31) + 1]));
  });
});

describe("rasterMatches", () => {
  it("gives every hit a pixel of its own, and loses none among its neighbours", () => {
    const random = seededRandom(testSeed() + 4);
    for (let round = 0; round < 40; round++) {
      const rows = rowsOf(randomSpans(random, 300));
      const hits = Uint32Array.from(rows.event.keys()).filter(() => random.next() < 0.2);
      const view = { startUs: 0, usPerPx: 2 ** random.int(-3, 4), widthPx: 200 };
      for (let row = 0; row + 1 < rows.rowOffset.length; row++) {
        const own = hits.filter(
          (slot) => slot >= rows.rowOffset[row]! && slot < rows.rowOffset[row + 1]!,
        );
        const line = new Uint32Array(200);
        const colorOf = new Uint8Array(rows.event.length);
        const raster = { rows, view, colorOf, shades, line };
        const count = rasterMatches(raster, own, 0, own.length);
        expect(count).toBeLessThanOrEqual(200 + 1);
        for (const slot of own) {
          const x = Math.floor(rows.start[slot]! / view.usPerPx);
          if (x < 200) expect(line[x], `seed ${testSeed()}, round ${round}`).not.toBe(0);
        }
      }
    }
  });
});

describe("enclosingSlot", () => {
  it("is the innermost slice, its ends included", () => {
    const rows = rowsOf([
      [1, 0, 100],
      [1, 10, 20],
      [2, 0, 5],
    ]);
    const eventAt = (timeUs: number): number => {
      const slot = enclosingSlot(rows, 0, timeUs);
      return slot === NONE ? -1 : (rows.event[slot] as number);
    };
    expect([15, 10, 30, 31, 100, 101].map(eventAt)).toEqual([1, 1, 1, 0, 0, -1]);
  });
});
