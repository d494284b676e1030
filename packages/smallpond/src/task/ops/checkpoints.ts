// What an attempt at a long task has done so far, where the next attempt finds it: numbered folders
// beside the attempts' own, each with the files made since the one before and the number of batches
// they came from. A folder appears by one rename, and the first of a number is the one that counts;
// an attempt that comes second stops putting anything there and goes on by itself. Files are hard
// links, so an attempt keeps what it took up whatever becomes of the folders.

import {
  copyFileSync,
  linkSync,
  mkdirSync,
  readFileSync,
  renameSync,
  rmSync,
  writeFileSync,
} from "node:fs";
import { basename, dirname, join } from "node:path";
import type { FilePart } from "../../dataset/dataset.ts";

/** Begins the names of the folders; they outlast attempts and restarts of a job. */
export const checkpointPrefix = "checkpoint.";

interface Saved {
  readonly parts: readonly FilePart[];
  readonly batches: number;
}

/** Of one attempt. */
export class Checkpoints {
  readonly #folder: string;
  readonly #root: string;
  readonly #everyMs: number;
  #lastMs = performance.now();
  #count = 0;
  #files = 0;
  #alone = false;
  /** Batches that the files taken up came from. */
  batches = 0;

  /** @param folder The attempt's; checkpoints lie beside it. */
  constructor(folder: string, key: string, everyMs: number) {
    this.#folder = folder;
    this.#root = join(dirname(folder), checkpointPrefix + key);
    this.#everyMs = everyMs;
  }

  /** The files of earlier attempts, now in this one's folder. */
  takeUp(): readonly FilePart[] {
    const parts: FilePart[] = [];
    for (;;) {
      const saved = this.#takeOne(join(this.#root, String(this.#count)));
      if (saved === undefined) break;
      parts.push(...saved.parts);
      this.batches = saved.batches;
      this.#count++;
    }
    this.#files = parts.length;
    return parts;
  }

  /** One checkpoint's files, linked; undefined if there is none, or another attempt just ended. */
  #takeOne(place: string): Saved | undefined {
    const parts: FilePart[] = [];
    try {
      const saved = JSON.parse(readFileSync(join(place, "saved.json"), "utf8")) as Saved;
      for (const part of saved.parts) {
        const path = join(this.#folder, part.path);
        linkOrCopy(join(place, part.path), path);
        parts.push({ ...part, path });
      }
      return { parts, batches: saved.batches };
    } catch (error) {
      if ((error as NodeJS.ErrnoException).code !== "ENOENT") throw error;
      // A file of that name would be written through the link.
      for (const { path } of parts) rmSync(path, { force: true });
      return undefined;
    }
  }

  get due(): boolean {
    return !this.#alone && performance.now() - this.#lastMs >= this.#everyMs;
  }

  /** Puts the attempt's new files where others find them. @param parts All of the attempt's. */
  put(parts: readonly FilePart[], batches: number): void {
    const fresh = parts.slice(this.#files);
    const aside = `${this.#folder}.${this.#count}`;
    try {
      mkdirSync(aside, { recursive: true });
      for (const { path } of fresh) linkOrCopy(path, join(aside, basename(path)));
      const saved: Saved = {
        parts: fresh.map((part) => ({ ...part, path: basename(part.path) })),
        batches,
      };
      writeFileSync(join(aside, "saved.json"), JSON.stringify(saved));
      mkdirSync(this.#root, { recursive: true });
      renameSync(aside, join(this.#root, String(this.#count)));
    } catch (error) {
      rmSync(aside, { recursive: true, force: true });
      const { code } = error as NodeJS.ErrnoException;
      if (code !== "ENOTEMPTY" && code !== "EEXIST") throw error;
      this.#alone = true;
    }
    this.#count++;
    this.#files = parts.length;
    this.#lastMs = performance.now();
  }

  /** The task is done, but for moving its files into place. */
  remove(): void {
    rmSync(this.#root, { recursive: true, force: true });
  }
}

function linkOrCopy(from: string, to: string): void {
  try {
    linkSync(from, to);
  } catch (error) {
    const { code } = error as NodeJS.ErrnoException;
    if (code === "ENOENT" || code === "EEXIST") throw error;
    copyFileSync(from, to);
  }
}
