import { expect, it } from "vitest";
import { philox4x32, uniformAt } from "../src/philox.ts";

// Known answers published with the algorithm's authors' library (Random123, kat_vectors).
it("gives the published numbers", () => {
  expect(philox4x32([0, 0, 0, 0], [0, 0])).toEqual([
    0x6627e8d5, 0xe169c58d, 0xbc57ac4c, 0x9b00dbd8,
  ]);
  const ones = 0xffffffff;
  expect(philox4x32([ones, ones, ones, ones], [ones, ones])).toEqual([
    0x408f276d, 0x41c83b0e, 0xa20bc7c6, 0x6d5451fd,
  ]);
  expect(
    philox4x32([0x243f6a88, 0x85a308d3, 0x13198a2e, 0x03707344], [0xa4093822, 0x299f31d0]),
  ).toEqual([0xd16cfe09, 0x94fdcceb, 0x5001e420, 0x24126ea1]);
});

it("is uniform over positions and differs between seeds, negative ones too", () => {
  const counts = new Array<number>(16).fill(0);
  for (let i = 0; i < 16_000; i++) {
    const u = uniformAt(42, i);
    expect(u >= 0 && u < 1).toBe(true);
    counts[Math.floor(u * 16)] = (counts[Math.floor(u * 16)] ?? 0) + 1;
  }
  const chi2 = counts.reduce((sum, n) => sum + (n - 1000) ** 2 / 1000, 0);
  // 15 degrees of freedom: 37.7 is exceeded once in a thousand; the numbers are fixed.
  expect(chi2).toBeLessThan(37.7);
  const firsts = [0, 1, -1, 2 ** 32, 2 ** 52, -(2 ** 40)].map((seed) => uniformAt(seed, 0));
  expect(new Set(firsts).size).toBe(firsts.length);
  expect(uniformAt(7, 3)).toBe(uniformAt(7, 3));
});
