// The precompiled vector headers: made for the second kernel, used from then on, never needed, and
// without effect on what a kernel becomes.

import {
  existsSync,
  readdirSync,
  readFileSync,
  statSync,
  truncateSync,
  writeFileSync,
} from "node:fs";
import { join } from "node:path";
import { requirement } from "@open-infra/testing";
import { describe, expect, it } from "vitest";
import { clearCache, listCache } from "../src/admin.ts";
import { readEntry } from "../src/entry.ts";
import { headerPattern } from "../src/precompiled.ts";
import type { KernelSpec } from "../src/source.ts";
import {
  callNumber,
  found,
  needsCompiler,
  openCache,
  tempDir,
  wrappedCompiler,
  writeFile,
} from "./helpers.ts";

const gcc = process.arch === "x64" && /\bgcc version\b/.test(found?.version ?? "");
const skip =
  requirement("precompiled headers", needsCompiler) ||
  requirement("precompiled headers", gcc ? true : "only gcc on x86 keeps them", "optional");

/** A kernel that reads the vector headers and returns a number. */
function vectorKernel(dir: string, value: number): KernelSpec {
  const text = `#include <immintrin.h>
int64_t number(void *p) { return _mm_cvtsi128_si32(_mm_set1_epi32(VALUE)); }
`;
  const source = writeFile(dir, "vector.c", text);
  return {
    name: `vector|${value}`,
    source,
    entry: "number",
    constants: { VALUE: value },
    params: {},
  };
}

describe.skipIf(skip)("precompiled headers", () => {
  it("are made for the second kernel, and change nothing but the time", () => {
    const dir = tempDir();
    const cacheDir = join(dir, "cache");
    const log = join(dir, "log");
    writeFileSync(log, "");
    const compiler = wrappedCompiler(dir, `echo "$@" >> '${log}'`);
    const runs = (): string[] => readFileSync(log, "utf8").split("\n").filter(Boolean);
    const cache = openCache(cacheDir, {}, compiler);
    const specs = [1, 2, 3].map((value) => vectorKernel(dir, value));
    expect(callNumber(cache, specs[0] as KernelSpec)).toBe(1);
    expect(runs().filter((line) => line.includes("-include"))).toEqual([]);
    expect(callNumber(cache, specs[1] as KernelSpec)).toBe(2);
    expect(callNumber(cache, specs[2] as KernelSpec)).toBe(3);
    const lines = runs();
    expect(lines.filter((line) => line.includes("c-header"))).toHaveLength(1);
    expect(lines.filter((line) => line.includes("-include"))).toHaveLength(2);
    expect(lines).toHaveLength(4);
    // Another process finds it; its first kernel needs none made.
    expect(callNumber(openCache(cacheDir, {}, compiler), vectorKernel(dir, 4))).toBe(4);
    expect(runs().filter((line) => line.includes("c-header"))).toHaveLength(1);
    expect(runs().at(-1)).toContain("-include");
    // The same key, compiled where there is no header, is the same file.
    const other = join(dir, "other");
    openCache(other, {}, compiler).load(specs[2] as KernelSpec);
    const [entry] = listCache({ cacheDir: other, readonlyCacheDirs: [] });
    const library = (where: string): Buffer => {
      const state = readEntry(where, entry?.key as string);
      return readFileSync(state.state === "ok" ? state.library : "");
    };
    expect(Buffer.compare(library(cacheDir), library(other))).toBe(0);
    expect(listCache({ cacheDir, readonlyCacheDirs: [] })).toHaveLength(4);
    clearCache({ cacheDir });
    expect(readdirSync(cacheDir)).toEqual([]);
  });

  it("may be damaged, or not come about", () => {
    const dir = tempDir();
    const cacheDir = join(dir, "cache");
    const cache = openCache(cacheDir);
    for (const value of [1, 2]) expect(callNumber(cache, vectorKernel(dir, value))).toBe(value);
    const header = readdirSync(cacheDir).find((name) => headerPattern.test(name)) as string;
    truncateSync(join(cacheDir, header, "header.h.gch"), 1000);
    // One process found it sound before; another one sees the damage and makes it anew.
    expect(callNumber(cache, vectorKernel(dir, 3))).toBe(3);
    const fresh = openCache(cacheDir);
    for (const value of [4, 5]) expect(callNumber(fresh, vectorKernel(dir, value))).toBe(value);
    expect(statSync(join(cacheDir, header, "header.h.gch")).size).toBeGreaterThan(1000);
    const failing = wrappedCompiler(dir, 'case "$*" in *c-header*) exit 1;; esac');
    const second = openCache(join(dir, "second"), {}, failing);
    for (const value of [1, 2, 3]) expect(callNumber(second, vectorKernel(dir, value))).toBe(value);
    expect(existsSync(join(dir, "second"))).toBe(true);
    const names = readdirSync(join(dir, "second"));
    expect(names.filter((name) => !/^[0-9a-f]{64}$/.test(name))).toEqual([]);
  });

  it("come about once in a parallel warm-up", async () => {
    const dir = tempDir();
    const cacheDir = join(dir, "cache");
    const specs = [1, 2, 3, 4, 5, 6].map((value) => vectorKernel(dir, value));
    const cache = openCache(cacheDir);
    await cache.compileAll(specs);
    for (const [i, spec] of specs.entries()) expect(callNumber(cache, spec)).toBe(i + 1);
    expect(readdirSync(cacheDir).filter((name) => headerPattern.test(name))).toHaveLength(1);
    expect(readdirSync(cacheDir).filter((name) => name.startsWith("."))).toEqual([]);
  });
});
