// What an attempt at a long task has done so far, kept where the next attempt finds it. A
// checkpoint is one small record, which names all files that hold the results so far and how many
// rows of the input they came from. Nothing in the folder is ever changed: an attempt adds files
// and records under names of its own, so that two at once cannot spoil each other's, and a reader
// takes the record that is furthest along and whole. What is whole is told by sizes and hashes.

import { createHash, randomUUID } from "node:crypto";
import {
  closeSync,
  copyFileSync,
  fsyncSync,
  linkSync,
  mkdirSync,
  openSync,
  readdirSync,
  readFileSync,
  readSync,
  renameSync,
  rmSync,
  statSync,
  writeFileSync,
} from "node:fs";
import { basename, dirname, join } from "node:path";

/** Ends the names of checkpoints' folders in `staging`; they outlast attempts and drivers. */
export const checkpointSuffix = ".checkpoint";

const formatVersion = 1;
const hashChunkBytes = 2 ** 20;

/** A file of a checkpoint. */
interface KeptFile {
  readonly name: string;
  readonly bytes: number;
  readonly sha256: string;
  readonly rows: number;
}

interface Checkpoint<State> {
  readonly version: number;
  readonly inputRows: number;
  readonly files: readonly KeptFile[];
  readonly state: State;
  readonly held?: KeptFile;
}

/** Where an attempt goes on. */
export interface Resumed<State> {
  /** Rows of the input that are done. */
  readonly inputRows: number;
  /** Finished files, in order, now in the attempt's own folder. */
  readonly files: readonly { readonly path: string; readonly rows: number }[];
  readonly state: State;
  /** What had no file of results yet. */
  readonly held: Uint8Array | undefined;
}

/** Where checkpoints of a task lie; undefined for a folder that is no attempt at it. */
export function checkpointFolder(staging: string, key: string): string | undefined {
  if (!basename(staging).startsWith(`${key}.`)) return undefined;
  return join(dirname(staging), key + checkpointSuffix);
}

/** The checkpoints of one attempt, and those of others that it may go on from. */
export class CheckpointChain<State> {
  readonly #folder: string;
  readonly #staging: string;
  /** In the names of all that this attempt adds. */
  readonly #attempt = randomUUID().slice(0, 13);
  #files: KeptFile[] = [];
  /** The record before, and what only it names. */
  #last: readonly string[] = [];
  #serial = 0;

  constructor(folder: string, staging: string) {
    this.#folder = folder;
    this.#staging = staging;
    mkdirSync(folder, { recursive: true });
  }

  /** The newest checkpoint that is whole, of whatever attempt; undefined if there is none. */
  resume(): Resumed<State> | undefined {
    const names = readdirSync(this.#folder).filter((name) => name.endsWith(".json"));
    // Names begin with the rows done, in as many digits.
    for (const name of names.sort().reverse()) {
      const found = this.#read(name);
      if (found === undefined) continue;
      try {
        return this.#takeUp(found);
      } catch {
        // A file was lost or damaged: what was taken up goes, an older one may be whole.
        for (const file of found.files) rmSync(join(this.#staging, file.name), { force: true });
      }
    }
    return undefined;
  }

  #read(name: string): Checkpoint<State> | undefined {
    try {
      const text = readFileSync(join(this.#folder, name), "utf8");
      const [hash, body = ""] = [text.slice(0, 64), text.slice(65)];
      if (createHash("sha256").update(body).digest("hex") !== hash) return undefined;
      const record = JSON.parse(body) as Checkpoint<State>;
      return record.version === formatVersion ? record : undefined;
    } catch {
      return undefined;
    }
  }

  #takeUp({ files, held, inputRows, state }: Checkpoint<State>): Resumed<State> {
    const taken = files.map((file) => {
      const path = join(this.#staging, file.name);
      linkOrCopy(join(this.#folder, file.name), path);
      expectWhole(path, file);
      return { path, rows: file.rows };
    });
    let heldBytes: Uint8Array | undefined;
    if (held !== undefined) {
      const path = join(this.#folder, held.name);
      expectWhole(path, held);
      heldBytes = readFileSync(path);
    }
    this.#files = [...files];
    return { inputRows, files: taken, state, held: heldBytes };
  }

  /** A name in the attempt's folder for its next file, which no other attempt uses. */
  nextFile(): string {
    return join(this.#staging, `part-${this.#attempt}-${this.#serial++}.parquet`);
  }

  /**
   * Records that results of so many rows are in the files so far, `file` the newest of them.
   *
   * Does nothing once the task's result is in place and its checkpoints are gone.
   */
  save(
    inputRows: number,
    state: State,
    file: { readonly path: string; readonly rows: number } | undefined,
    held: Uint8Array | undefined,
  ): void {
    try {
      if (file !== undefined) this.#files.push(this.#keep(file.path, file.rows));
      const heldFile = held && this.#keepHeld(held);
      const record: Checkpoint<State> = {
        version: formatVersion,
        inputRows,
        files: this.#files,
        state,
        ...(heldFile && { held: heldFile }),
      };
      const body = JSON.stringify(record);
      const hash = createHash("sha256").update(body).digest("hex");
      const name = `${String(inputRows).padStart(16, "0")}.${this.#attempt}.json`;
      const aside = join(this.#folder, `${name}.new`);
      writeFileSync(aside, `${hash} ${body}`, { flush: true });
      renameSync(aside, join(this.#folder, name));
      syncFolder(this.#folder);
      for (const old of this.#last) rmSync(join(this.#folder, old), { force: true });
      this.#last = heldFile === undefined ? [name] : [name, heldFile.name];
    } catch (error) {
      if ((error as NodeJS.ErrnoException).code !== "ENOENT") throw error;
    }
  }

  #keep(path: string, rows: number): KeptFile {
    sync(path);
    const name = basename(path);
    linkOrCopy(path, join(this.#folder, name));
    return { name, bytes: statSync(path).size, sha256: hashOf(path), rows };
  }

  #keepHeld(held: Uint8Array): KeptFile {
    const name = `held-${this.#attempt}-${this.#serial++}.bin`;
    writeFileSync(join(this.#folder, name), held, { flush: true });
    const sha256 = createHash("sha256").update(held).digest("hex");
    return { name, bytes: held.length, sha256, rows: 0 };
  }
}

function expectWhole(path: string, { bytes, sha256 }: KeptFile): void {
  if (statSync(path).size !== bytes || hashOf(path) !== sha256) throw new Error(`${path}: damaged`);
}

function hashOf(path: string): string {
  const hash = createHash("sha256");
  const buffer = Buffer.allocUnsafe(hashChunkBytes);
  const file = openSync(path, "r");
  try {
    for (;;) {
      const bytes = readSync(file, buffer);
      if (bytes === 0) return hash.digest("hex");
      hash.update(buffer.subarray(0, bytes));
    }
  } finally {
    closeSync(file);
  }
}

function linkOrCopy(from: string, to: string): void {
  try {
    linkSync(from, to);
  } catch (error) {
    const { code } = error as NodeJS.ErrnoException;
    if (code === "ENOENT" || code === "EEXIST") throw error;
    copyFileSync(from, to);
    sync(to);
  }
}

function sync(path: string): void {
  const file = openSync(path, "r");
  try {
    fsyncSync(file);
  } finally {
    closeSync(file);
  }
}

const syncFolder = sync;
