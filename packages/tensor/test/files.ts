// Scratch files for the tests of safetensors: a folder that goes away, files made by hand.

import { mkdirSync, mkdtempSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { CheckpointError } from "@open-infra/tensor";
import { afterAll, expect } from "vitest";

export interface Scratch {
  readonly dir: string;
  /** A path nobody has used. */
  freshPath(): string;
  /** A new folder. */
  freshDir(): string;
  /** A file of header text, `dataBytes` of data, and a length that may lie. */
  rawFile(header: string | Uint8Array, dataBytes?: number, length?: bigint): string;
}

/** A folder for the calling test file, removed after its tests. */
export function scratch(): Scratch {
  const dir = mkdtempSync(join(tmpdir(), "open-infra-safetensors-"));
  afterAll(() => rmSync(dir, { recursive: true, force: true }));
  let files = 0;
  const freshPath = (): string => join(dir, `${files++}.safetensors`);
  return {
    dir,
    freshPath,
    freshDir() {
      const path = join(dir, `checkpoint-${files++}`);
      mkdirSync(path);
      return path;
    },
    rawFile(header, dataBytes = 0, length) {
      const path = freshPath();
      const json = Buffer.from(header);
      const prefix = Buffer.alloc(8);
      prefix.writeBigUInt64LE(length ?? BigInt(json.length));
      writeFileSync(path, Buffer.concat([prefix, json, Buffer.alloc(dataBytes, 1)]));
      return path;
    },
  };
}

/** The header entry of one tensor, valid or not. */
export function entry(dtype: unknown, shape: unknown, offsets: unknown): string {
  return JSON.stringify({ dtype, shape, data_offsets: offsets });
}

/** A header of such entries. */
export function headerOf(entries: Readonly<Record<string, string>>): string {
  const fields = Object.entries(entries).map(([name, value]) => `"${name}":${value}`);
  return `{${fields.join(",")}}`;
}

/** The CheckpointError that `act` must throw. */
export function errorOf(act: () => unknown): CheckpointError {
  try {
    act();
  } catch (error) {
    expect(error).toBeInstanceOf(CheckpointError);
    return error as CheckpointError;
  }
  return expect.fail("nothing was thrown");
}
