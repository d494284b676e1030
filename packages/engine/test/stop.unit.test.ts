import { seededRandom, testSeed } from "@open-infra/testing";
import { describe, expect, it } from "vitest";
import { StopMatcher } from "../src/stop.ts";

function run(stops: readonly string[], pieces: readonly string[]) {
  const matcher = new StopMatcher(stops);
  const shown: string[] = [];
  for (const piece of pieces) {
    const { text, stop } = matcher.push(piece);
    shown.push(text);
    if (stop !== null) return { shown, text: shown.join(""), stop };
  }
  shown.push(matcher.flush());
  return { shown, text: shown.join(""), stop: null };
}

/** Character by character: the first stop to be complete, the longest of those that end there. */
function oracle(stops: readonly string[], text: string) {
  for (let end = 1; end <= text.length; end++) {
    const ended = stops.filter((s) => text.slice(0, end).endsWith(s));
    const longest = ended.sort((a, b) => b.length - a.length)[0];
    if (longest !== undefined) return { text: text.slice(0, end - longest.length), stop: longest };
  }
  return { text, stop: null };
}

describe("StopMatcher", () => {
  it("cuts before a stop string that is split over pieces", () => {
    const { shown, stop } = run(["\n\nUser:"], ["Hello", "\n", "\nUs", "er", ": more"]);
    expect(shown).toEqual(["Hello", "", "", "", ""]);
    expect(stop).toBe("\n\nUser:");
  });

  it("lets go of text that turned out not to be a stop string", () => {
    expect(run(["abcd"], ["xab", "c", "e"]).shown).toEqual(["x", "", "abce", ""]);
  });

  it("gives back what it held when the text ends", () => {
    expect(run(["END"], ["the E", "N"])).toEqual({
      shown: ["the ", "", "EN"],
      text: "the EN",
      stop: null,
    });
  });

  it("holds back an overlapping beginning", () => {
    expect(run(["aab"], ["aa", "a", "b", "z"])).toMatchObject({ text: "a", stop: "aab" });
  });

  it("passes everything through at once without stop strings", () => {
    expect(run([], ["a", "b"]).shown).toEqual(["a", "b", ""]);
  });

  it("agrees with the obvious search, however the text is cut", () => {
    const random = seededRandom(testSeed());
    const letters = (n: number): string =>
      Array.from({ length: n }, () => random.pick(["a", "b", "c", "é", "😀"])).join("");
    for (let round = 0; round < 3000; round++) {
      const stops = Array.from({ length: random.int(1, 4) }, () => letters(random.int(1, 5)));
      const text = letters(random.int(0, 24));
      const pieces: string[] = [];
      for (let at = 0; at < text.length; ) {
        const n = random.int(1, 6);
        pieces.push(text.slice(at, at + n));
        at += n;
      }
      const { text: got, stop } = run(stops, pieces);
      const message = `seed ${random.seed}, round ${round}: ${JSON.stringify({ stops, pieces })}`;
      expect({ text: got, stop }, message).toEqual(oracle(stops, text));
    }
  });
});
