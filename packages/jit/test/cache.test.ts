// The cache on disk: one compile per key among processes, crashes, damage, levels, full and
// unwritable directories, cancelling.

import { existsSync, mkdirSync, readdirSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { hostname } from "node:os";
import { join } from "node:path";
import { requirement } from "@open-infra/testing";
import { describe, expect, it } from "vitest";
import { clearCache, listCache } from "../src/admin.ts";
import type { WarmupProgress } from "../src/device.ts";
import { CacheError, CompileError } from "../src/errors.ts";
import {
  callNumber,
  countingCompiler,
  needsCompiler,
  numberKernel,
  openCache,
  startChild,
  tempDir,
  until,
  wrappedCompiler,
  writeFile,
} from "./helpers.ts";

const skip = requirement("kernel cache", needsCompiler);

/** Names in a cache that are not entries: locks, builds, rubbish. */
function leftovers(dir: string): string[] {
  return readdirSync(dir).filter((name) => !/^[0-9a-f]{64}$/.test(name));
}

describe.skipIf(skip)("kernel cache", () => {
  it("compiles once, and never again", () => {
    const dir = tempDir();
    const cacheDir = join(dir, "cache");
    const { compiler, count } = countingCompiler(dir);
    const spec = numberKernel(dir, 7);
    expect(callNumber(openCache(cacheDir, {}, compiler), spec)).toBe(7);
    expect(callNumber(openCache(cacheDir, {}, compiler), spec)).toBe(7);
    expect(count()).toBe(1);
    expect(leftovers(cacheDir)).toEqual([]);
    const [entry] = listCache({ cacheDir });
    expect(entry).toMatchObject({ name: "number|7", isa: "scalar", readonly: false });
    expect(readdirSync(join(cacheDir, entry?.key ?? "")).sort()).toEqual([
      "kernel.c",
      "kernel.so",
      "meta.json",
    ]);
    expect(clearCache({ cacheDir })).toBe(1);
    expect(readdirSync(cacheDir)).toEqual([]);
  });

  it("compiles once for sixteen processes that ask at once", async () => {
    const dir = tempDir();
    const cacheDir = join(dir, "cache");
    const { compiler, count } = countingCompiler(dir);
    numberKernel(dir, 1);
    const children = Array.from({ length: 16 }, () => startChild(dir, cacheDir, compiler.path, 41));
    const results = await Promise.all(children.map(({ done }) => done));
    for (const { code, output } of results) expect(`${code} ${output.trim()}`).toBe("0 41");
    expect(count()).toBe(1);
    expect(leftovers(cacheDir)).toEqual([]);
  });

  it("recovers from kill -9 in the middle of a compile", async () => {
    const dir = tempDir();
    const cacheDir = join(dir, "cache");
    numberKernel(dir, 1);
    const started = join(dir, "started");
    const once = `case "$*" in *-fsyntax-only*) ;; *) if [ ! -e '${started}' ]; then
      echo $$ > '${started}'; echo half > kernel.so; sleep 60; fi ;; esac`;
    const { path } = wrappedCompiler(dir, once);
    const first = startChild(dir, cacheDir, path, 42);
    await until("the compiler runs", () => existsSync(started));
    // One that waits for the first one's lock when that is killed.
    const second = startChild(dir, cacheDir, path, 42);
    first.child.kill("SIGKILL");
    expect((await first.done).code).not.toBe(0);
    try {
      process.kill(Number(readFileSync(started, "utf8")), "SIGKILL");
    } catch {
      // The compiler went with its parent.
    }
    expect(await second.done).toEqual({ code: 0, output: "42\n" });
    expect(leftovers(cacheDir)).toEqual([]);
    expect(listCache({ cacheDir })).toHaveLength(1);
  });

  it("finds damage and rebuilds", () => {
    const dir = tempDir();
    const cacheDir = join(dir, "cache");
    const { compiler, count } = countingCompiler(dir);
    const spec = numberKernel(dir, 9);
    callNumber(openCache(cacheDir, {}, compiler), spec);
    const entry = join(cacheDir, listCache({ cacheDir })[0]?.key ?? "");
    const library = join(entry, "kernel.so");
    const whole = readFileSync(library);
    const flipped = Buffer.from(whole);
    flipped[flipped.length >> 1] = (flipped[flipped.length >> 1] as number) ^ 1;
    // This process has the library mapped, so a damaged one must be a new file, not written over
    // it.
    const replace = (bytes: string | Uint8Array): void => {
      rmSync(library);
      writeFileSync(library, bytes);
    };
    const damages: (() => void)[] = [
      () => replace(whole.subarray(0, 1000)),
      () => replace(""),
      () => replace(flipped),
      () => rmSync(library),
      () => rmSync(join(entry, "meta.json")),
      () => writeFileSync(join(entry, "meta.json"), '{"schema":1'),
      () => {
        rmSync(entry, { recursive: true });
        mkdirSync(entry);
      },
      () => {
        rmSync(entry, { recursive: true });
        writeFileSync(entry, "not a directory");
      },
    ];
    for (const [i, damage] of damages.entries()) {
      damage();
      expect(listCache({ cacheDir })).toEqual([]);
      const said: string[] = [];
      const cache = openCache(cacheDir, { log: (line) => said.push(line) }, compiler);
      expect(callNumber(cache, spec)).toBe(9);
      expect(count()).toBe(i + 2);
      expect(said.join()).toContain("is damaged");
      expect(leftovers(cacheDir)).toEqual([]);
    }
  });

  it("uses read-only levels and writes nothing there or elsewhere", () => {
    const dir = tempDir();
    const shipped = join(dir, "shipped");
    const { compiler, count } = countingCompiler(dir);
    const spec = numberKernel(dir, 5);
    callNumber(openCache(shipped, {}, compiler), spec);
    const cacheDir = join(dir, "own");
    const levels = { readonlyCacheDirs: [join(dir, "none"), shipped] };
    expect(callNumber(openCache(cacheDir, levels, compiler), spec)).toBe(5);
    expect(count()).toBe(1);
    expect(existsSync(cacheDir)).toBe(false);
    expect(listCache({ cacheDir, readonlyCacheDirs: [shipped] })[0]?.readonly).toBe(true);
    // A damaged kernel there is not repaired there.
    rmSync(join(shipped, listCache({ cacheDir: shipped })[0]?.key ?? "", "kernel.so"));
    expect(callNumber(openCache(cacheDir, levels, compiler), spec)).toBe(5);
    expect(count()).toBe(2);
    expect(listCache({ cacheDir })).toHaveLength(1);
    expect(listCache({ cacheDir: shipped })).toHaveLength(0);
  });

  it("says which directory cannot be written and which variable names another", () => {
    const dir = tempDir();
    writeFileSync(join(dir, "file"), "");
    const cacheDir = join(dir, "file", "cache");
    const load = (): unknown => openCache(cacheDir).load(numberKernel(dir, 3));
    expect(load).toThrow(CacheError);
    expect(load).toThrow(cacheDir);
    expect(load).toThrow(/cannot be written .*OPEN_INFRA_JIT_CACHE_DIR/);
  });

  it("tells a full disk from a kernel that does not compile", () => {
    const dir = tempDir();
    const full = wrappedCompiler(dir, `echo "fatal error: No space left on device" >&2; exit 1`);
    const cacheDir = join(dir, "cache");
    const spec = numberKernel(dir, 3);
    expect(() => openCache(cacheDir, {}, full).load(spec)).toThrow(/no space left/);
    expect(() => openCache(cacheDir, {}, full).load(spec)).toThrow(CacheError);
    const bad = writeFile(dir, "bad.c", "int bad(void) { return missing; }\n");
    const badSpec = { ...spec, name: "bad", source: bad, entry: "bad" };
    expect(() => openCache(cacheDir).load(badSpec)).toThrow(CompileError);
    expect(() => openCache(cacheDir).load(badSpec)).toThrow(/bad\.c:1:.*missing/);
    const empty = wrappedCompiler(dir, ": > kernel.so; exit 0");
    expect(() => openCache(cacheDir, {}, empty).load(spec)).toThrow(/wrote no kernel\.so/);
    const dies = wrappedCompiler(dir, "kill -9 $$");
    expect(() => openCache(cacheDir, {}, dies).load(spec)).toThrow(/killed by SIGKILL/);
    expect(leftovers(cacheDir)).toEqual([]);
    expect(listCache({ cacheDir })).toEqual([]);
  });

  it("takes over the locks of the dead", () => {
    const dir = tempDir();
    const cacheDir = join(dir, "cache");
    const spec = numberKernel(dir, 11);
    callNumber(openCache(cacheDir), spec);
    const key = listCache({ cacheDir })[0]?.key ?? "";
    const lock = join(cacheDir, `.lock-${key}`);
    const abandoned = { token: "t", pid: 1, thread: 0, started: "1", leaseMs: 200 };
    const contents = [
      "", // Killed between making and writing it.
      JSON.stringify({ ...abandoned, host: "another host" }), // Its lease runs out.
      JSON.stringify({ ...abandoned, host: hostname(), pid: 2 ** 22 + 1 }), // No /proc: by lease.
    ];
    for (const content of contents) {
      clearCache({ cacheDir });
      writeFileSync(lock, content);
      expect(callNumber(openCache(cacheDir), spec)).toBe(11);
      expect(leftovers(cacheDir)).toEqual([]);
    }
  });

  it("dumps assembly and prints commands when asked", () => {
    const dir = tempDir();
    const cacheDir = join(dir, "cache");
    const said: string[] = [];
    const log = (line: string): unknown => said.push(line);
    openCache(cacheDir, { dumpAsm: true, printCommand: true, debug: true, log }).load(
      numberKernel(dir, 12),
    );
    const key = listCache({ cacheDir })[0]?.key ?? "";
    expect(readFileSync(join(cacheDir, "asm", `${key}.s`), "utf8")).toContain("number");
    expect(said.join("\n")).toMatch(/-O3 .*kernel\.c/);
    expect(said.join("\n")).toMatch(/compiled \w+ number\|12 in \d+ ms/);
    clearCache({ cacheDir });
    expect(readdirSync(cacheDir)).toEqual([]);
  });
});

describe.skipIf(skip)("compileAll", () => {
  it("compiles what is missing and counts only that", async () => {
    const dir = tempDir();
    const cacheDir = join(dir, "cache");
    const { compiler, count } = countingCompiler(dir);
    const specs = [1, 2, 3, 4, 5].map((value) => numberKernel(dir, value));
    openCache(cacheDir, {}, compiler).load(specs[2] as (typeof specs)[0]);
    const seen: WarmupProgress[] = [];
    const cache = openCache(cacheDir, {}, compiler);
    await cache.compileAll([...specs, ...specs], { onProgress: (now) => seen.push(now) });
    expect(count()).toBe(5);
    expect(seen).toHaveLength(10);
    expect(seen.at(-1)).toMatchObject({ done: 10, total: 10, compiled: 4 });
    for (const [i, spec] of specs.entries()) expect(callNumber(cache, spec)).toBe(i + 1);
    expect(count()).toBe(5);
  });

  it("stops when aborted and leaves nothing behind", async () => {
    const dir = tempDir();
    const cacheDir = join(dir, "cache");
    const pids = join(dir, "pids");
    const slow = wrappedCompiler(dir, `echo $$ >> '${pids}'; sleep 60`);
    const abort = new AbortController();
    const specs = [1, 2, 3, 4].map((value) => numberKernel(dir, value));
    const work = openCache(cacheDir, {}, slow).compileAll(specs, { signal: abort.signal });
    await until("a compiler runs", () => existsSync(pids));
    abort.abort(new Error("enough"));
    await expect(work).rejects.toThrow("enough");
    expect(readdirSync(cacheDir)).toEqual([]);
    for (const pid of readFileSync(pids, "utf8").trim().split("\n")) {
      expect(() => process.kill(Number(pid), 0)).toThrow();
    }
  });

  it("stops at the first failure", async () => {
    const dir = tempDir();
    const cacheDir = join(dir, "cache");
    const bad = writeFile(dir, "bad.c", "int bad(void) { return missing; }\n");
    const good = numberKernel(dir, 1);
    const specs = [{ ...good, name: "bad", source: bad }, good];
    await expect(openCache(cacheDir).compileAll(specs)).rejects.toThrow(CompileError);
    expect(leftovers(cacheDir)).toEqual([]);
  });

  it("does not stand still when the same thread asks meanwhile", async () => {
    const dir = tempDir();
    const cacheDir = join(dir, "cache");
    const spec = numberKernel(dir, 6);
    const started = join(dir, "started");
    const slow = wrappedCompiler(dir, `: > '${started}'; sleep 0.3`);
    const work = openCache(cacheDir, {}, slow).compileAll([spec]);
    await until("the compiler runs", () => existsSync(started));
    expect(callNumber(openCache(cacheDir), spec)).toBe(6);
    await work;
    expect(leftovers(cacheDir)).toEqual([]);
    expect(listCache({ cacheDir })).toHaveLength(1);
  });
});
