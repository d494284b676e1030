// One cache entry: a directory named by its key, with the kernel, its source and a description that
// holds the kernel's checksum. Entries appear by one rename and never change, so a reader sees all
// of it or nothing; what a crash or a bad disk leaves behind fails the checksum.

import { createHash, randomUUID } from "node:crypto";
import {
  closeSync,
  existsSync,
  fsyncSync,
  mkdirSync,
  openSync,
  readFileSync,
  renameSync,
  rmSync,
  writeFileSync,
} from "node:fs";
import { join } from "node:path";
import { CacheError } from "./errors.ts";
import { cacheSchema } from "./key.ts";

/** `meta.json` of an entry. */
export interface EntryMeta {
  readonly schema: number;
  readonly key: string;
  /** The operation and its constants. */
  readonly name: string;
  readonly isa: string;
  readonly compiler: string;
  readonly flags: readonly string[];
  /** Of `kernel.so`. */
  readonly bytes: number;
  readonly sha256: string;
  readonly createdMs: number;
}

export const libraryFile = "kernel.so";
export const sourceFile = "kernel.c";
export const metaFile = "meta.json";

/** A sound entry, or why there is none. */
export type EntryState =
  | { readonly state: "ok"; readonly library: string; readonly meta: EntryMeta }
  | { readonly state: "missing" }
  | { readonly state: "corrupt"; readonly reason: string };

/** Reads and checks the entry of `key` below `dir`; the checksum is verified. */
export function readEntry(dir: string, key: string): EntryState {
  const entry = join(dir, key);
  let meta: EntryMeta | undefined;
  try {
    meta = parseMeta(readFileSync(join(entry, metaFile), "utf8"));
  } catch (error) {
    const { code } = error as NodeJS.ErrnoException;
    if (code !== "ENOENT" && code !== "ENOTDIR") return { state: "corrupt", reason: String(code) };
    return existsSync(entry) ? { state: "corrupt", reason: "no meta.json" } : { state: "missing" };
  }
  if (meta === undefined || meta.key !== key) return { state: "corrupt", reason: "bad meta.json" };
  const library = join(entry, libraryFile);
  try {
    const bytes = readFileSync(library);
    if (bytes.length !== meta.bytes || sha256(bytes) !== meta.sha256) {
      return { state: "corrupt", reason: "checksum of kernel.so differs" };
    }
  } catch (error) {
    return { state: "corrupt", reason: `kernel.so: ${(error as NodeJS.ErrnoException).code}` };
  }
  return { state: "ok", library, meta };
}

/** Parses a description; undefined if it is not one of this schema. */
export function parseMeta(text: string): EntryMeta | undefined {
  let value: unknown;
  try {
    value = JSON.parse(text);
  } catch {
    return undefined;
  }
  if (typeof value !== "object" || value === null) return undefined;
  const meta = value as Record<string, unknown>;
  const strings = ["key", "name", "isa", "compiler", "sha256"].every(
    (field) => typeof meta[field] === "string",
  );
  const numbers = Number.isSafeInteger(meta.bytes) && typeof meta.createdMs === "number";
  const flags = Array.isArray(meta.flags) && meta.flags.every((flag) => typeof flag === "string");
  const ok = meta.schema === cacheSchema && strings && numbers && flags;
  return ok ? (meta as unknown as EntryMeta) : undefined;
}

/** Makes a private directory to build `key` in, next to where it will be published. */
export function makeBuildDir(dir: string, key: string): string {
  const build = join(dir, `.build-${key}-${process.pid}-${randomUUID().slice(0, 8)}`);
  try {
    mkdirSync(dir, { recursive: true, mode: 0o700 });
    mkdirSync(build);
  } catch (error) {
    throw cacheProblem(dir, error);
  }
  return build;
}

/** Writes one file of an entry being built, down to the disk. */
export function writeDurably(path: string, data: string | Uint8Array): void {
  const fd = openSync(path, "w", 0o644);
  try {
    writeFileSync(fd, data);
    fsyncSync(fd);
  } finally {
    closeSync(fd);
  }
}

/**
 * Completes the build (`kernel.so` and `kernel.c` are there) with its description and publishes it
 * by rename. If a sound entry is there already, that one stays. Returns the library's path.
 */
export function publishEntry(
  dir: string,
  build: string,
  meta: Omit<EntryMeta, "schema" | "bytes" | "sha256" | "createdMs">,
): string {
  try {
    const library = join(build, libraryFile);
    const bytes = readFileSync(library);
    syncPath(library);
    const full: EntryMeta = {
      ...meta,
      schema: cacheSchema,
      bytes: bytes.length,
      sha256: sha256(bytes),
      createdMs: Date.now(),
    };
    writeDurably(join(build, metaFile), `${JSON.stringify(full, null, 2)}\n`);
    syncPath(build);
    return renameIntoPlace(dir, build, meta.key);
  } catch (error) {
    throw cacheProblem(dir, error);
  }
}

function renameIntoPlace(dir: string, build: string, key: string): string {
  const entry = join(dir, key);
  for (let attempt = 0; ; attempt++) {
    try {
      renameSync(build, entry);
      syncPath(dir);
      return join(entry, libraryFile);
    } catch (error) {
      const { code } = error as NodeJS.ErrnoException;
      const taken = code === "ENOTEMPTY" || code === "EEXIST" || code === "ENOTDIR";
      if (!taken || attempt === 8) throw error;
    }
    const there = readEntry(dir, key);
    if (there.state === "ok") {
      rmSync(build, { recursive: true, force: true });
      return there.library;
    }
    removeEntry(dir, key);
  }
}

/** Takes an entry away: out of sight by one rename, then deleted. */
export function removeEntry(dir: string, key: string): void {
  const trash = join(dir, `.trash-${key}-${randomUUID().slice(0, 8)}`);
  try {
    renameSync(join(dir, key), trash);
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code === "ENOENT") return;
    throw error;
  }
  rmSync(trash, { recursive: true, force: true });
}

/** Turns a file-system error into one that names the cache and the way out. */
export function cacheProblem(dir: string, error: unknown): Error {
  const { code, message } = error as NodeJS.ErrnoException;
  if (error instanceof CacheError || code === undefined) return error as Error;
  const cause = { cause: error };
  if (code === "ENOSPC" || code === "EDQUOT") {
    return new CacheError(dir, `has no space left (${message})`, cause);
  }
  return new CacheError(dir, `cannot be written (${message})`, cause);
}

export function sha256(bytes: Uint8Array): string {
  return createHash("sha256").update(bytes).digest("hex");
}

/**
 * fsync of a file or directory; not all file systems can sync a directory, and then none is needed.
 */
function syncPath(path: string): void {
  const fd = openSync(path, "r");
  try {
    fsyncSync(fd);
  } catch (error) {
    const { code } = error as NodeJS.ErrnoException;
    if (code !== "EINVAL" && code !== "ENOTSUP" && code !== "EBADF") throw error;
  } finally {
    closeSync(fd);
  }
}
