// What moves the view of the trace page, and what it writes: zoom about a point, glides, motion
// under held keys, keys, ticks, durations, colours.

import { seededRandom, testSeed } from "@open-infra/testing";
import { describe, expect, it } from "vitest";
import { Motion, stillStep } from "../web/src/pages/trace/timeline/motion.ts";
import {
  betweenViews,
  clampView,
  fitView,
  panView,
  revealView,
  type TimeRange,
  wholeView,
  zoomView,
} from "../web/src/pages/trace/timeline/viewport.ts";
import { briefName } from "../web/src/pages/trace/view/brief-name.ts";
import { actionOf, directionOf, type KeyPress } from "../web/src/pages/trace/view/keys.ts";
import { inkOn, mix, parseHex, pixelOf } from "../web/src/ui/colors.ts";
import { formatBytes } from "../web/src/ui/format.ts";
import { formatExactUs, formatTick, formatUs, ticksBetween } from "../web/src/ui/time-axis.ts";

const TOTAL_US = 100_000;
const width = ({ startUs, endUs }: TimeRange): number => endUs - startUs;

describe("views", () => {
  it("keep the point under the pointer while they zoom", () => {
    const seed = testSeed();
    const random = seededRandom(seed);
    for (let round = 0; round < 200; round++) {
      const startUs = random.int(0, 50_000);
      const view = { startUs, endUs: startUs + random.int(10, 40_000) };
      const anchor = startUs + random.next() * width(view);
      const zoomed = zoomView(view, 0.2 + random.next() * 0.8, anchor, TOTAL_US);
      const before = (anchor - view.startUs) / width(view);
      const after = (anchor - zoomed.startUs) / width(zoomed);
      expect(after, `seed ${seed}, round ${round}`).toBeCloseTo(before, 6);
    }
  });

  it("stay with the trace, however far they are pushed", () => {
    let view = wholeView(TOTAL_US);
    for (let k = 0; k < 200; k++) view = zoomView(view, 0.5, 7, TOTAL_US);
    expect(width(view)).toBeCloseTo(0.05, 9);
    for (let k = 0; k < 200; k++) view = zoomView(view, 2, 7, TOTAL_US);
    expect(view.startUs).toBeCloseTo(wholeView(TOTAL_US).startUs, 6);
    expect(view.endUs).toBeCloseTo(wholeView(TOTAL_US).endUs, 6);
    view = panView({ startUs: 10, endUs: 20 }, -100, TOTAL_US);
    expect(view.startUs).toBeCloseTo(-0.2, 9);
    expect(width(view)).toBeCloseTo(10, 9);
    expect(panView({ startUs: 10, endUs: 20 }, 1e9, TOTAL_US).endUs).toBeCloseTo(100_000.2, 6);
    expect(width(clampView({ startUs: 5, endUs: 5 }, 0))).toBeGreaterThan(0);
  });

  it("fit a range with room, and reveal one with as little movement as it takes", () => {
    const range = { startUs: 1000, endUs: 2000 };
    const fitted = fitView(range, TOTAL_US);
    expect(fitted.startUs).toBeLessThan(1000);
    expect(fitted.endUs).toBeGreaterThan(2000);
    const view = { startUs: 0, endUs: 5000 };
    expect(revealView(view, range, TOTAL_US)).toBe(view);
    const far = revealView(view, { startUs: 60_000, endUs: 60_500 }, TOTAL_US);
    expect(width(far)).toBeCloseTo(5000, 6);
    expect((far.startUs + far.endUs) / 2).toBeCloseTo(60_250, 6);
    // A speck in sight is nothing to see.
    const speck = revealView(view, { startUs: 100, endUs: 100.5 }, TOTAL_US);
    expect(width(speck)).toBeCloseTo(6, 6);
    expect(width(revealView(view, { startUs: 0, endUs: 9000 }, TOTAL_US))).toBeGreaterThan(9000);
  });

  it("glide from one to the other and arrive", () => {
    const from = { startUs: 0, endUs: 1000 };
    const to = { startUs: 400, endUs: 410 };
    expect(betweenViews(from, to, 0)).toEqual(from);
    expect(betweenViews(from, to, 1)).toBe(to);
    let before = 1000;
    for (let step = 1; step < 10; step++) {
      const view = betweenViews(from, to, step / 10);
      expect(width(view)).toBeLessThan(before);
      before = width(view);
      // What is shown at the end is in sight all the way.
      expect(view.startUs).toBeLessThanOrEqual(400);
      expect(view.endUs).toBeGreaterThanOrEqual(410);
    }
    const aside = betweenViews({ startUs: 0, endUs: 10 }, { startUs: 100, endUs: 110 }, 0.5);
    expect(width(aside)).toBeCloseTo(10, 9);
  });
});

describe("Motion", () => {
  it("speeds up, holds its speed, and coasts to a stop", () => {
    const motion = new Motion();
    expect(motion.moving).toBe(false);
    motion.press("right");
    const pans = Array.from({ length: 60 }, () => motion.advance(16).pan);
    expect(pans[1]).toBeGreaterThan(pans[0] as number);
    expect(pans[59]).toBeCloseTo(pans[58] as number, 4);
    motion.release("right");
    let frames = 0;
    while (motion.moving) {
      motion.advance(16);
      frames++;
    }
    expect(frames).toBeGreaterThan(3);
    expect(frames).toBeLessThan(60);
    expect(motion.advance(16)).toEqual({ zoom: 1, pan: 0, scroll: 0 });
  });

  it("goes as far in few frames as in many", () => {
    const far = (ms: number): number => {
      const motion = new Motion();
      motion.press("zoomIn");
      let zoom = 1;
      for (let at = 0; at < 960; at += ms) zoom *= motion.advance(ms).zoom;
      return zoom;
    };
    expect(Math.log(far(8)) / Math.log(far(32))).toBeCloseTo(1, 0);
    expect(far(16)).toBeLessThan(0.2);
  });

  it("stands still against itself, and at once when told", () => {
    const motion = new Motion();
    motion.press("left");
    motion.press("right");
    expect(motion.advance(16).pan).toBe(0);
    motion.release("left");
    motion.advance(16);
    motion.stop();
    expect(motion.moving).toBe(false);
    expect(stillStep("zoomIn").zoom * stillStep("zoomOut").zoom).toBeCloseTo(1, 12);
  });
});

describe("keys", () => {
  const press = (key: string, modifiers: Omit<KeyPress, "key"> = {}) =>
    actionOf({ key, ...modifiers });

  it("mean what the help says, and leave the browser's own alone", () => {
    expect(press("w")).toEqual({ kind: "move", direction: "zoomIn" });
    expect(press("ArrowLeft")).toEqual({ kind: "move", direction: "left" });
    expect(press("N", { shiftKey: true })).toEqual({ kind: "command", command: "previousHit" });
    expect(press("?", { shiftKey: true })).toEqual({ kind: "command", command: "help" });
    expect(press("w", { ctrlKey: true })).toBeUndefined();
    expect(press("f", { metaKey: true })).toBeUndefined();
    expect(press("x")).toBeUndefined();
    // Shift may come between pressing and lifting.
    expect(directionOf("W")).toBe("zoomIn");
  });
});

describe("time", () => {
  it("has ticks at round times, never closer than asked", () => {
    const seed = testSeed();
    const random = seededRandom(seed + 1);
    for (let round = 0; round < 200; round++) {
      const startUs = random.int(-1000, 1e6);
      const spanUs = 10 ** (random.next() * 9 - 2);
      const { stepUs, timesUs } = ticksBetween(startUs, startUs + spanUs, 1000, 100);
      const message = `seed ${seed}, round ${round}`;
      expect((stepUs / spanUs) * 1000, message).toBeGreaterThanOrEqual(99.99);
      expect(timesUs.length, message).toBeLessThanOrEqual(11);
      expect(timesUs.length, message).toBeGreaterThanOrEqual(3);
      const lead = stepUs / 10 ** Math.floor(Math.log10(stepUs) + 1e-9);
      expect(
        [1, 2, 5].some((round) => Math.abs(lead - round) < 1e-6),
        message,
      ).toBe(true);
    }
    expect(ticksBetween(0, 0, 100, 10).timesUs).toEqual([]);
  });

  it("is written with a fitting unit", () => {
    expect([0, 0.001, 0.8124, 41.27, 999, 3604, 129_012, 1.25e6, 3.6e9].map(formatUs)).toEqual([
      "0 µs",
      "1 ns",
      "812 ns",
      "41.27 µs",
      "999.0 µs",
      "3.604 ms",
      "129.0 ms",
      "1.250 s",
      "3,600 s",
    ]);
    expect(formatUs(Number.NaN)).toBe("–");
    expect(formatTick(1_298_300, 100)).toBe("1.2983 s");
    expect(formatTick(20_000, 20_000)).toBe("20 ms");
    expect(formatTick(-5000, 5000)).toBe("-5 ms");
    expect(formatTick(0, 5)).toBe("0");
    expect(formatExactUs(1_298_525.1254)).toBe("1,298,525.125 µs");
  });

  it("bytes too", () => {
    expect([0, 812, 3_132_978, 84e6, 1.2e9].map(formatBytes)).toEqual([
      "0 B",
      "812 B",
      "3.13 MB",
      "84.0 MB",
      "1.20 GB",
    ]);
  });
});

describe("names and colours", () => {
  it("shorten C++, not the words of a person", () => {
    expect(briefName("void deep_ep::internode::dispatch<true, 4>(int*)")).toBe(
      "internode::dispatch",
    );
    expect(briefName("attn(F)")).toBe("attn(F)");
  });

  it("read tokens and mix", () => {
    expect(parseHex("#0a6c63")).toEqual([10, 108, 99]);
    expect(parseHex("#fff")).toEqual([255, 255, 255]);
    expect(parseHex("teal")).toEqual([128, 128, 128]);
    expect(mix([200, 0, 0], [0, 100, 0], 0.5)).toEqual([100, 50, 0]);
    expect([...new Uint8Array(Uint32Array.of(pixelOf([1, 2, 3])).buffer)]).toEqual([1, 2, 3, 255]);
    expect(inkOn([250, 240, 200], [0, 0, 0], [255, 255, 255])).toEqual([0, 0, 0]);
    expect(inkOn([20, 40, 80], [0, 0, 0], [255, 255, 255])).toEqual([255, 255, 255]);
  });
});
