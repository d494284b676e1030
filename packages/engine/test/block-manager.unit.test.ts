import { seededRandom, testSeed } from "@open-infra/testing";
import { describe, expect, it } from "vitest";
import { BlockManager, type BlockTable } from "../src/block-manager.ts";

const range = (n: number, from = 0): number[] => Array.from({ length: n }, (_, i) => from + i);

function opened(manager: BlockManager, tokens: readonly number[]) {
  const result = manager.open(tokens);
  if (result === undefined) throw new Error("no room");
  return result;
}

describe("BlockManager", () => {
  it("shares full blocks of equal beginnings, never the block of the last token", () => {
    const manager = new BlockManager({ numBlocks: 8, blockTokens: 4 });
    const a = opened(manager, range(10));
    expect(a.cachedTokens).toBe(0);
    manager.register(a.table, range(10), 10);
    const b = opened(manager, range(10));
    expect(b.cachedTokens).toBe(8);
    expect(b.table.blocks.slice(0, 2)).toEqual(a.table.blocks.slice(0, 2));
    expect(b.table.blocks[2]).not.toBe(a.table.blocks[2]);
    expect(manager.references(a.table.blocks[0] as number)).toBe(2);
    // All 8 tokens are cached, but the last must be computed, so one block counts.
    const c = opened(manager, range(8));
    expect(c.cachedTokens).toBe(4);
    expect(manager.prefixCache).toEqual({ queriedTokens: 28, hitTokens: 12 });
    for (const { table } of [a, b, c]) manager.close(table);
    expect(manager.used).toBe(0);
    expect(manager.available).toBe(8);
  });

  it("does not take equal tokens behind different beginnings for the same", () => {
    const manager = new BlockManager({ numBlocks: 8, blockTokens: 2 });
    const a = opened(manager, [1, 2, 3, 4, 5]);
    manager.register(a.table, [1, 2, 3, 4, 5], 4);
    const b = opened(manager, [9, 9, 3, 4, 5]);
    expect(b.cachedTokens).toBe(0);
    // Token ids beyond 16 bits keep all their bits.
    const c = opened(manager, [1 + 65536, 2, 3]);
    expect(c.cachedTokens).toBe(0);
  });

  it("joins blocks that two sequences computed at the same time", () => {
    const manager = new BlockManager({ numBlocks: 8, blockTokens: 4 });
    const tokens = range(9);
    const a = opened(manager, tokens);
    const b = opened(manager, tokens);
    expect(manager.used).toBe(6);
    manager.register(a.table, tokens, 9);
    manager.register(b.table, tokens, 9);
    expect(b.table.blocks.slice(0, 2)).not.toEqual(a.table.blocks.slice(0, 2));
    manager.register(b.table, tokens, 9, { join: true });
    expect(b.table.blocks.slice(0, 2)).toEqual(a.table.blocks.slice(0, 2));
    expect(manager.used).toBe(4);
  });

  it("evicts the least recently used, and the end of a chain before its beginning", () => {
    const manager = new BlockManager({ numBlocks: 4, blockTokens: 2 });
    const a = opened(manager, [1, 1, 2, 2]);
    manager.register(a.table, [1, 1, 2, 2], 4);
    manager.close(a.table);
    const b = opened(manager, [7, 7, 8]);
    manager.register(b.table, [7, 7, 8], 3);
    manager.close(b.table);
    expect(manager.cachedBlocks).toBe(3);
    const c = opened(manager, [5, 5, 6, 6]);
    // One block was empty; the other came from the end of the older chain.
    expect(opened(manager, [1, 1, 2]).cachedTokens).toBe(2);
    manager.close(c.table);
  });

  it("takes nothing when blocks are short, and counts idle cached ones as available once", () => {
    const manager = new BlockManager({ numBlocks: 3, blockTokens: 2 });
    const a = opened(manager, [1, 1, 2, 2, 3]);
    manager.register(a.table, [1, 1, 2, 2, 3], 5);
    expect(manager.open([9])).toBeUndefined();
    manager.close(a.table);
    expect(manager.open([1, 1, 2, 2, 3], { spare: 1 })).toBeUndefined();
    expect(manager.used).toBe(0);
    expect(opened(manager, [1, 1, 2, 2, 3]).cachedTokens).toBe(4);
    expect(manager.reserve({ blocks: [], registered: 0, chain: 0 }, 1)).toBe(false);
  });

  it("can do without the cache", () => {
    const manager = new BlockManager({ numBlocks: 8, blockTokens: 2, prefixCaching: false });
    const a = opened(manager, [1, 1, 2]);
    manager.register(a.table, [1, 1, 2], 3);
    manager.close(a.table);
    expect(opened(manager, [1, 1, 2]).cachedTokens).toBe(0);
    expect(manager.cachedBlocks).toBe(0);
  });
});

/**
 * Random sequences over a small alphabet, so that beginnings are shared often. `written` plays the
 * cache's memory: what each slot of each block holds. Whatever happens, a table must lead to its
 * own tokens.
 */
it("never leaks, never frees twice, and never leads to another's content", () => {
  const random = seededRandom(testSeed());
  for (let round = 0; round < 60; round++) {
    const blockTokens = random.int(1, 5);
    const numBlocks = random.int(4, 24);
    const manager = new BlockManager({ numBlocks, blockTokens });
    const written = new Map<number, string>();
    const live: { tokens: number[]; table: BlockTable; computed: number }[] = [];
    const at = (): string => `seed ${random.seed}, round ${round}`;
    const prefix = (tokens: number[], i: number): string => tokens.slice(0, i + 1).join();
    for (let op = 0; op < 200; op++) {
      const kind = random.int(0, 4);
      const one = random.pick(live);
      if (kind === 0) {
        const tokens = range(random.int(1, blockTokens * 5)).map(() => random.int(0, 2));
        const result = manager.open(tokens, { spare: random.int(0, 2) });
        if (result !== undefined) {
          live.push({ tokens, table: result.table, computed: result.cachedTokens });
        }
      } else if (one !== undefined && kind === 1) {
        const n = random.int(1, one.tokens.length - one.computed + 1);
        for (let i = one.computed; i < Math.min(one.computed + n, one.tokens.length); i++) {
          const block = one.table.blocks[Math.floor(i / blockTokens)] as number;
          expect(manager.references(block), `${at()}: writing a shared block`).toBe(1);
          written.set(block * 8 + (i % blockTokens), prefix(one.tokens, i));
        }
        one.computed = Math.min(one.computed + n, one.tokens.length);
        manager.register(one.table, one.tokens, one.computed, { join: true });
      } else if (one !== undefined && kind === 2 && one.computed === one.tokens.length) {
        if (manager.reserve(one.table, one.tokens.length + 1)) one.tokens.push(random.int(0, 2));
      } else if (one !== undefined && kind === 3) {
        manager.close(one.table);
        live.splice(live.indexOf(one), 1);
      }
      const referenced = new Set(live.flatMap(({ table }) => table.blocks));
      expect(manager.used, at()).toBe(referenced.size);
      for (const { tokens, table, computed } of live) {
        for (let i = 0; i < computed; i++) {
          const slot =
            (table.blocks[Math.floor(i / blockTokens)] as number) * 8 + (i % blockTokens);
          expect(written.get(slot), at()).toBe(prefix(tokens, i));
        }
      }
    }
    for (const { table } of live) manager.close(table);
    expect(manager.used, at()).toBe(0);
    expect(manager.available, at()).toBe(numBlocks);
    manager.clearCache();
    expect(manager.cachedBlocks, at()).toBe(0);
    for (let block = 0; block < numBlocks; block++) expect(manager.references(block)).toBe(0);
  }
});
