// GNU sort on the same records: the time it takes and whether it says the same, byte for byte. Only
// for ASCII records, which are lines.

import { spawn } from "node:child_process";
import { closeSync, fstatSync, openSync, readSync, rmSync } from "node:fs";
import { join } from "node:path";
import { InfraError } from "@open-infra/errors";

/** How GNU sort did. */
export interface SortComparison {
  readonly seconds: number;
  /** Its output is our parts one after another. */
  readonly equal: boolean;
}

/**
 * Sorts lines of files by all their bytes with as many threads; gives the seconds it took.
 *
 * @throws InfraError if there is no such program, or it fails
 */
export async function runGnuSort(options: {
  readonly inputs: readonly string[];
  readonly output: string;
  readonly threads: number;
  /** Where it may put what does not fit into memory. */
  readonly temporary: string;
}): Promise<number> {
  const { inputs, output, threads, temporary } = options;
  const args = [`--parallel=${threads}`, "-T", temporary, "-o", output, "--", ...inputs];
  const startMs = performance.now();
  const child = spawn("sort", args, {
    env: { ...process.env, LC_ALL: "C" },
    stdio: ["ignore", "ignore", "pipe"],
  });
  let said = "";
  child.stderr.setEncoding("utf8").on("data", (text: string) => {
    said += text;
  });
  await new Promise<void>((resolve, reject) => {
    const fail = (reason: string): void => reject(new InfraError("gnu-sort", `sort: ${reason}`));
    child.once("error", (error) => fail(error.message));
    child.once("close", (code, signal) =>
      code === 0 ? resolve() : fail(said.trim() || `ended with ${signal ?? code}`),
    );
  });
  return (performance.now() - startMs) / 1000;
}

/** Runs GNU sort on the inputs and compares with our parts. */
export async function compareWithGnuSort(options: {
  readonly inputs: readonly string[];
  readonly parts: readonly string[];
  readonly threads: number;
  readonly folder: string;
}): Promise<SortComparison> {
  const { inputs, parts, threads, folder } = options;
  const output = join(folder, `gnu-sort.${process.pid}`);
  try {
    const seconds = await runGnuSort({ inputs, output, threads, temporary: folder });
    return { seconds, equal: sameBytes(output, parts) };
  } finally {
    rmSync(output, { force: true });
  }
}

const blockBytes = 2 ** 22;

/** Whether a file is others one after another. */
export function sameBytes(whole: string, parts: readonly string[]): boolean {
  const fd = openSync(whole, "r");
  const [left, right] = [Buffer.allocUnsafe(blockBytes), Buffer.allocUnsafe(blockBytes)];
  try {
    for (const path of parts) {
      const part = openSync(path, "r");
      try {
        for (let rest = fstatSync(part).size; rest > 0; ) {
          const bytes = readSync(part, right, 0, Math.min(blockBytes, rest), null);
          if (bytes === 0 || !readExactly(fd, left, bytes)) return false;
          if (left.compare(right, 0, bytes, 0, bytes) !== 0) return false;
          rest -= bytes;
        }
      } finally {
        closeSync(part);
      }
    }
    return readSync(fd, left, 0, 1, null) === 0;
  } finally {
    closeSync(fd);
  }
}

function readExactly(fd: number, target: Buffer, bytes: number): boolean {
  let at = 0;
  while (at < bytes) {
    const read = readSync(fd, target, at, bytes - at, null);
    if (read === 0) return false;
    at += read;
  }
  return true;
}
