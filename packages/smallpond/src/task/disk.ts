// Full disks: which errors mean one, and how much room there is.

import { statfsSync } from "node:fs";
import { DiskError } from "../errors.ts";

/** What an executor is told about the file system of the job. */
export interface StorageOptions {
  /** Outputs reach the disk before they become visible, for file systems that lose power. */
  readonly durable?: boolean;
  /** Tasks fail rather than leave less than this free. */
  readonly minFreeDiskBytes?: number;
}

/** No space, quota used up, file larger than allowed. */
const fullCodes = new Set(["ENOSPC", "EDQUOT", "EFBIG"]);
const fullTexts = [
  /no space left|ENOSPC|disk (?:is )?full|max_temp_directory_size/i,
  /disk quota exceeded|EDQUOT|file too large/i,
];

/** Whether a disk was full, of Node's errors and DuckDB's. */
export function isDiskFull(error: unknown): boolean {
  if (error instanceof DiskError) return true;
  if (!(error instanceof Error)) return false;
  const { code } = error as NodeJS.ErrnoException;
  if (code !== undefined && fullCodes.has(code)) return true;
  const full = fullTexts.some((text) => text.test(error.message));
  return full || (error.cause !== undefined && isDiskFull(error.cause));
}

/** Bytes that may be written below a folder; 0 if the folder is gone. */
export function freeBytes(folder: string): number {
  try {
    const { bavail, bsize } = statfsSync(folder);
    return bavail * bsize;
  } catch {
    return 0;
  }
}

/** An error with what it says about the disk, if it is about one; else the error itself. */
export function namedDiskError(error: unknown, folder: string): unknown {
  if (!isDiskFull(error) || error instanceof DiskError) return error;
  const message = error instanceof Error ? error.message : String(error);
  return new DiskError(folder, freeBytes(folder), `the disk is full (${message})`, {
    cause: error,
  });
}

/** @throws DiskError if less than so much is free */
export function expectSpace(folder: string, leastBytes: number): void {
  if (leastBytes <= 0) return;
  const free = freeBytes(folder);
  if (free >= leastBytes) return;
  throw new DiskError(folder, free, `less is free than minFreeDiskBytes ${leastBytes}`);
}
