// Files of records: read whole or by blocks, written through large buffers. Reads and writes are
// synchronous, because a task has nothing else to do meanwhile; between blocks the thread is free
// for a moment, so that the executor can say that it is alive.

import { closeSync, fstatSync, openSync, readSync, writeSync } from "node:fs";
import { setImmediate as breathe } from "node:timers/promises";
import { InfraError } from "@open-infra/errors";
import type { DataSet, FilePart } from "../dataset/dataset.ts";
import { recordBytes } from "./records.ts";

/** A file that is no sequence of records, or ends before its end. */
export class RecordFileError extends InfraError {
  constructor(path: string, message: string) {
    super("record-file", `${path}: ${message}`);
  }
}

const blockBytes = 80_000 * recordBytes;

/** Records in a file, by its size. @throws RecordFileError */
export function recordsIn(path: string, bytes: number): number {
  if (bytes % recordBytes === 0) return bytes / recordBytes;
  throw new RecordFileError(path, `${bytes} bytes are no multiple of ${recordBytes}`);
}

function readFully(fd: number, target: Uint8Array, position: number, path: string): void {
  let at = 0;
  while (at < target.length) {
    const read = readSync(fd, target, at, target.length - at, position + at);
    if (read === 0) throw new RecordFileError(path, `ends at byte ${position + at}`);
    at += read;
  }
}

function withFile<T>(path: string, body: (fd: number, bytes: number) => T): T {
  const fd = openSync(path, "r");
  try {
    const bytes = fstatSync(fd).size;
    recordsIn(path, bytes);
    return body(fd, bytes);
  } finally {
    closeSync(fd);
  }
}

/** All records of some files, one after another. */
export function readRecords(parts: readonly FilePart[]): Uint8Array {
  const sizes = parts.map(({ path }) => withFile(path, (_, bytes) => bytes));
  const records = Buffer.allocUnsafeSlow(sizes.reduce((sum, bytes) => sum + bytes, 0));
  let at = 0;
  for (const [i, { path }] of parts.entries()) {
    const bytes = sizes[i] as number;
    withFile(path, (fd) => readFully(fd, records.subarray(at, at + bytes), 0, path));
    at += bytes;
  }
  return records;
}

/** A file's records, a block of some MB at a time; the block is used again for the next. */
export async function eachBlock(
  { path }: FilePart,
  take: (records: Uint8Array) => void,
): Promise<void> {
  const fd = openSync(path, "r");
  try {
    const bytes = fstatSync(fd).size;
    recordsIn(path, bytes);
    const block = Buffer.allocUnsafeSlow(Math.min(blockBytes, bytes));
    for (let at = 0; at < bytes; at += blockBytes) {
      const piece = block.subarray(0, Math.min(blockBytes, bytes - at));
      readFully(fd, piece, at, path);
      take(piece);
      await breathe();
    }
  } finally {
    closeSync(fd);
  }
}

/** Records at the given numbers in a file. */
export function readSome(path: string, numbers: readonly number[]): Uint8Array {
  return withFile(path, (fd) => {
    const records = Buffer.allocUnsafeSlow(numbers.length * recordBytes);
    for (const [i, number] of numbers.entries()) {
      const at = i * recordBytes;
      readFully(fd, records.subarray(at, at + recordBytes), number * recordBytes, path);
    }
    return records;
  });
}

/** Writes all of a buffer. */
export function writeFully(fd: number, bytes: Uint8Array): void {
  let at = 0;
  while (at < bytes.length) at += writeSync(fd, bytes, at);
}

/** A data set of files of records. */
export function recordFiles(parts: readonly FilePart[]): DataSet {
  return { format: "files", parts };
}

/** A finished file as a part. */
export function recordPart(path: string, bytes: number): FilePart {
  return { path, bytes, numRows: bytes / recordBytes };
}
