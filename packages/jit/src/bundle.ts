// A cache as one file, to carry to machines without a compiler or to ship with a container: magic,
// index length, a JSON index (key and three files' sizes and checksums for each kernel), then the
// files' bytes one after another. The index holds no paths, so a bundle cannot point outside the
// cache; everything else it says is checked before anything is written. Checksums guard against
// damage and not against malice: the kernels are native code, so import only what you trust.

import { randomUUID } from "node:crypto";
import {
  closeSync,
  fstatSync,
  openSync,
  readFileSync,
  readSync,
  renameSync,
  rmSync,
} from "node:fs";
import { join } from "node:path";
import { type CacheLocation, keysIn } from "./admin.ts";
import {
  type EntryMeta,
  libraryFile,
  makeBuildDir,
  metaFile,
  parseMeta,
  publishEntry,
  readEntry,
  sha256,
  sourceFile,
  writeDurably,
} from "./entry.ts";
import { BundleError } from "./errors.ts";
import { kernelKey, keyPattern } from "./key.ts";
import { readJitOptions } from "./options.ts";

const magic = "open-infra-jit-1\n";
const files = [metaFile, sourceFile, libraryFile] as const;
const MAX_INDEX_BYTES = 64 << 20;
const MAX_FILE_BYTES = 256 << 20;

interface FileInfo {
  readonly bytes: number;
  readonly sha256: string;
}

interface IndexEntry {
  readonly key: string;
  /** In the order of `files`. */
  readonly files: readonly FileInfo[];
}

/**
 * Writes all sound kernels, of the read-only levels too, into one file, put in place by rename.
 *
 * @throws BundleError if the file cannot be written.
 */
export function exportCache(
  file: string,
  location: CacheLocation = {},
): { entries: number; bytes: number } {
  const { cacheDir, readonlyCacheDirs } = { ...readJitOptions(), ...location };
  const index: IndexEntry[] = [];
  const parts: Buffer[] = [];
  const seen = new Set<string>();
  for (const dir of [cacheDir, ...readonlyCacheDirs]) {
    for (const key of keysIn(dir)) {
      if (seen.has(key) || readEntry(dir, key).state !== "ok") continue;
      seen.add(key);
      const contents = files.map((name) => readFileSync(join(dir, key, name)));
      index.push({ key, files: contents.map((b) => ({ bytes: b.length, sha256: sha256(b) })) });
      parts.push(...contents);
    }
  }
  const header = Buffer.from(JSON.stringify(index));
  const prefix = Buffer.alloc(magic.length + 8);
  prefix.write(magic, "latin1");
  prefix.writeBigUInt64LE(BigInt(header.length), magic.length);
  const temporary = `${file}.${randomUUID().slice(0, 8)}.tmp`;
  try {
    writeDurably(temporary, Buffer.concat([prefix, header, ...parts]));
    renameSync(temporary, file);
  } catch (cause) {
    discard(temporary);
    throw new BundleError(file, `it cannot be written (${(cause as Error).message})`, { cause });
  }
  const bytes = prefix.length + header.length + parts.reduce((sum, part) => sum + part.length, 0);
  return { entries: index.length, bytes };
}

/**
 * Adds a bundle's kernels to the writable cache. Nothing is written until the index has been
 * checked; each kernel is checked whole, and one that is there already stays.
 *
 * @throws BundleError if the file is not a bundle or is damaged; CacheError if the cache is not
 * writable.
 */
export function importCache(
  file: string,
  location: CacheLocation = {},
): { added: number; present: number } {
  const { cacheDir } = { ...readJitOptions(), ...location };
  let fd: number;
  try {
    fd = openSync(file, "r");
  } catch (cause) {
    throw new BundleError(file, (cause as Error).message, { cause });
  }
  try {
    const { index, start } = readIndex(file, fd);
    let at = start;
    let added = 0;
    for (const { key, files: infos } of index) {
      const contents = infos.map((info) => {
        const bytes = readExactly(file, fd, at, info.bytes);
        at += info.bytes;
        return bytes;
      });
      if (importEntry(file, cacheDir, { key, files: infos }, contents)) added++;
    }
    return { added, present: index.length - added };
  } finally {
    closeSync(fd);
  }
}

function readIndex(file: string, fd: number): { index: readonly IndexEntry[]; start: number } {
  const size = fstatSync(fd).size;
  const prefixBytes = magic.length + 8;
  if (size < prefixBytes) throw new BundleError(file, `${size} bytes are too few`);
  const prefix = readExactly(file, fd, 0, prefixBytes);
  if (prefix.toString("latin1", 0, magic.length) !== magic) {
    throw new BundleError(file, `it does not begin with '${magic.trim()}'`);
  }
  const length = prefix.readBigUInt64LE(magic.length);
  if (length > MAX_INDEX_BYTES || Number(length) > size - prefixBytes) {
    throw new BundleError(file, `its index claims ${length} bytes`);
  }
  const index = checkIndex(file, readExactly(file, fd, prefixBytes, Number(length)));
  const start = prefixBytes + Number(length);
  let total = start;
  for (const entry of index) for (const { bytes } of entry.files) total += bytes;
  if (total !== size) {
    throw new BundleError(file, `it is ${size} bytes long; its index describes ${total}`);
  }
  return { index, start };
}

function checkIndex(file: string, text: Buffer): readonly IndexEntry[] {
  let value: unknown;
  try {
    value = JSON.parse(text.toString("utf8"));
  } catch (cause) {
    throw new BundleError(file, "its index is not JSON", { cause });
  }
  if (!Array.isArray(value)) throw new BundleError(file, "its index is not a list");
  const keys = new Set<string>();
  for (const [i, entry] of (value as unknown[]).entries()) {
    const { key, files: infos } = (entry ?? {}) as { key?: unknown; files?: unknown };
    if (typeof key !== "string" || !keyPattern.test(key)) {
      throw new BundleError(file, `kernel ${i} has key ${JSON.stringify(key)?.slice(0, 80)}`);
    }
    if (keys.has(key)) throw new BundleError(file, `it holds ${key} twice`);
    keys.add(key);
    const sound = Array.isArray(infos) && infos.length === files.length && infos.every(isFileInfo);
    if (!sound)
      throw new BundleError(file, `the files of ${key} are not described as they must be`);
  }
  return value as readonly IndexEntry[];
}

function isFileInfo(value: unknown): value is FileInfo {
  const { bytes, sha256: sum } = (value ?? {}) as { bytes?: unknown; sha256?: unknown };
  const size = Number.isSafeInteger(bytes) && (bytes as number) >= 0;
  return size && (bytes as number) <= MAX_FILE_BYTES && typeof sum === "string";
}

/** True if it was not there yet. */
function importEntry(
  file: string,
  cacheDir: string,
  entry: IndexEntry,
  contents: readonly Buffer[],
): boolean {
  for (const [i, bytes] of contents.entries()) {
    if (sha256(bytes) !== entry.files[i]?.sha256) {
      throw new BundleError(file, `the checksum of ${files[i]} of ${entry.key} differs`);
    }
  }
  const [metaBytes, source, library] = contents as [Buffer, Buffer, Buffer];
  const meta = parseMeta(metaBytes.toString("utf8"));
  if (meta === undefined || meta.key !== entry.key || !isConsistent(meta, source, library)) {
    throw new BundleError(file, `the description of ${entry.key} does not fit its contents`);
  }
  if (readEntry(cacheDir, entry.key).state === "ok") return false;
  const build = makeBuildDir(cacheDir, entry.key);
  try {
    writeDurably(join(build, sourceFile), source);
    writeDurably(join(build, libraryFile), library);
    publishEntry(cacheDir, build, meta);
  } finally {
    rmSync(build, { recursive: true, force: true });
  }
  return true;
}

/** The key must be that of the source, flags and compiler that the entry claims. */
function isConsistent(meta: EntryMeta, source: Buffer, library: Buffer): boolean {
  const { compiler, flags } = meta;
  const key = kernelKey({ compiler, flags, source: source.toString("utf8") });
  return key === meta.key && meta.bytes === library.length && meta.sha256 === sha256(library);
}

function discard(file: string): void {
  try {
    rmSync(file, { force: true });
  } catch {
    // The failure that led here is the one to report.
  }
}

function readExactly(file: string, fd: number, position: number, length: number): Buffer {
  const bytes = Buffer.allocUnsafe(length);
  let got = 0;
  while (got < length) {
    const n = readSync(fd, bytes, got, length - got, position + got);
    if (n === 0) throw new BundleError(file, `it ends at byte ${position + got}`);
    got += n;
  }
  return bytes;
}
