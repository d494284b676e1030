import { describe, expect, it } from "vitest";
import { EngineOptionError } from "../src/errors.ts";
import { checkOptions, type EngineOptions, planCache } from "../src/options.ts";

const facts = {
  blockTokens: 64,
  bytesPerBlock: 1000,
  maxPositions: 4096,
  availableBytes: 100_000_000,
};
const plan = (options: Partial<EngineOptions>, more: Partial<typeof facts> = {}) =>
  planCache(checkOptions({ modelDir: "m", ...options }), { ...facts, ...more });

describe("planCache", () => {
  it("takes what the sequences can use, at most a quarter of the memory", () => {
    expect(plan({ maxSequences: 4 })).toMatchObject({ numBlocks: 128, maxModelLen: 4096 });
    expect(plan({ maxSequences: 1 })).toMatchObject({ numBlocks: 64, maxModelLen: 4096 });
    expect(plan({}, { availableBytes: 1_000_000 })).toMatchObject({ numBlocks: 250 });
  });

  it("cuts the model's own context to what fits, and says so", () => {
    const small = plan({}, { availableBytes: 40_000 });
    expect(small).toMatchObject({ numBlocks: 10, maxModelLen: 640 });
    expect(small.note).toMatch(/context 640 tokens \(the model allows 4096\)/);
    expect(plan({ numBlocks: 3 })).toMatchObject({ numBlocks: 3, maxModelLen: 192 });
    expect(plan({ kvCacheBytes: 5999 })).toMatchObject({ numBlocks: 5, maxModelLen: 320 });
  });

  it("gives a context that was asked for, or refuses with the numbers", () => {
    expect(plan({ maxModelLen: 1000 }, { availableBytes: 20_000 })).toMatchObject({
      numBlocks: 16,
      maxModelLen: 1000,
    });
    expect(() => plan({ maxModelLen: 1000 }, { availableBytes: 10_000 })).toThrow(
      /1000, which takes 16 cache blocks of 1000 bytes; expected at most 576/,
    );
    expect(() => plan({ maxModelLen: 5000 })).toThrow(EngineOptionError);
    expect(() => plan({ kvCacheBytes: 999 })).toThrow(
      /kvCacheBytes is 999; expected at least 1000/,
    );
  });

  it("allows only one size of the cache", () => {
    expect(() => plan({ kvCacheBytes: 5000, numBlocks: 3 })).toThrow(/only one of the two/);
  });
});
