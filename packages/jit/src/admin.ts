// What a person does to the cache on disk: look at it and clear it. Bundles are in bundle.ts.

import { readdirSync, rmSync } from "node:fs";
import { join } from "node:path";
import { cacheProblem, readEntry, removeEntry } from "./entry.ts";
import { keyPattern } from "./key.ts";
import { lockIsHeld } from "./lock.ts";
import { readJitOptions } from "./options.ts";
import { headerPattern } from "./precompiled.ts";

/** Which directories to look at. @default as the environment says */
export interface CacheLocation {
  readonly cacheDir?: string;
  readonly readonlyCacheDirs?: readonly string[];
}

/** A sound kernel in a cache. */
export interface CacheEntry {
  readonly key: string;
  /** The operation and its constants. */
  readonly name: string;
  readonly isa: string;
  readonly compiler: string;
  /** Of the library. */
  readonly bytes: number;
  readonly createdMs: number;
  readonly dir: string;
  /** Found in one of the read-only levels. */
  readonly readonly: boolean;
}

/**
 * All sound kernels, by name; a key that several levels hold is listed once, as it would be found.
 */
export function listCache(location: CacheLocation = {}): CacheEntry[] {
  const { cacheDir, readonlyCacheDirs } = { ...readJitOptions(), ...location };
  const entries = new Map<string, CacheEntry>();
  for (const dir of [cacheDir, ...readonlyCacheDirs]) {
    for (const key of keysIn(dir)) {
      const entry = readEntry(dir, key);
      if (entry.state !== "ok" || entries.has(key)) continue;
      const { name, isa, compiler, bytes, createdMs } = entry.meta;
      const readonly = dir !== cacheDir;
      entries.set(key, { key, name, isa, compiler, bytes, createdMs, dir, readonly });
    }
  }
  return [...entries.values()].sort((a, b) => (a.name < b.name ? -1 : a.name > b.name ? 1 : 0));
}

/**
 * Removes every kernel from the writable cache, damaged ones too, and what crashes left there.
 * Kernels that processes have loaded stay with them, and compiles under way finish. Returns the
 * number of kernels removed. @throws CacheError
 */
export function clearCache(location: CacheLocation = {}): number {
  const { cacheDir } = { ...readJitOptions(), ...location };
  try {
    const keys = keysIn(cacheDir);
    for (const key of keys) removeEntry(cacheDir, key);
    removeLeftovers(cacheDir);
    return keys.length;
  } catch (error) {
    throw cacheProblem(cacheDir, error);
  }
}

/** Keys that have a directory, sound or not. */
export function keysIn(dir: string): string[] {
  return namesIn(dir).filter((name) => keyPattern.test(name));
}

function removeLeftovers(dir: string): void {
  rmSync(join(dir, "asm"), { recursive: true, force: true });
  const names = namesIn(dir);
  const busy = new Set<string>();
  for (const name of names) {
    const key = /^\.lock-([0-9a-f]{64})(?:\.takeover)?$/.exec(name)?.[1];
    if (key === undefined) continue;
    if (lockIsHeld(join(dir, name))) busy.add(key);
    else rmSync(join(dir, name), { force: true });
  }
  for (const name of names) {
    const build = /^\.build-(?:[a-z]+-)?([0-9a-f]{64})-/.exec(name)?.[1];
    const header = headerPattern.test(name) || name.startsWith(".build-header-");
    const left = header || name.startsWith(".trash-") || (build !== undefined && !busy.has(build));
    if (left) rmSync(join(dir, name), { recursive: true, force: true });
  }
}

function namesIn(dir: string): string[] {
  try {
    return readdirSync(dir).sort();
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code === "ENOENT") return [];
    throw cacheProblem(dir, error);
  }
}
