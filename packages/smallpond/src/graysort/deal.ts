// Deals records out to files, one a partition, by split points. Each partition has a buffer, so
// that files are written by large pieces however many there are.

import { closeSync, openSync } from "node:fs";
import { join } from "node:path";
import type { FilePart } from "../dataset/dataset.ts";
import { copyRecord, wordsOf } from "./order.ts";
import { recordPart, writeFully } from "./record-files.ts";
import { recordBytes } from "./records.ts";
import type { SplitPoints } from "./splits.ts";

const recordWords = recordBytes / 4;
/** Of all buffers; a partition's is at most `largestBuffer` and at least a hundred records. */
const bufferedBytes = 64 * 2 ** 20;
const largestBuffer = 2 * 2 ** 20;

/** Files of partitions, being written. */
export class Dealer {
  readonly #folder: string;
  readonly #capacity: number;
  readonly #buffers: Uint8Array[] = [];
  readonly #words: Uint32Array[] = [];
  readonly #used: Uint32Array;
  readonly #written: number[];
  readonly #files: (number | undefined)[];

  constructor(folder: string, partitions: number) {
    this.#folder = folder;
    const each = Math.min(largestBuffer, bufferedBytes / partitions);
    this.#capacity = Math.max(100, Math.floor(each / recordBytes));
    for (let i = 0; i < partitions; i++) {
      const buffer = Buffer.allocUnsafeSlow(this.#capacity * recordBytes);
      this.#buffers.push(buffer);
      this.#words.push(wordsOf(buffer));
    }
    this.#used = new Uint32Array(partitions);
    this.#written = new Array<number>(partitions).fill(0);
    this.#files = new Array<number | undefined>(partitions).fill(undefined);
  }

  #path(partition: number): string {
    return join(this.#folder, `${partition}.records`);
  }

  add(records: Uint8Array, splits: SplitPoints): void {
    const words = wordsOf(records);
    const count = records.length / recordBytes;
    for (let i = 0; i < count; i++) {
      const partition = splits.partitionOf(records, i * recordBytes);
      let used = this.#used[partition] as number;
      if (used === this.#capacity) {
        this.#flush(partition);
        used = 0;
      }
      copyRecord(words, i * recordWords, this.#words[partition] as Uint32Array, used * recordWords);
      this.#used[partition] = used + 1;
    }
  }

  #flush(partition: number): void {
    const bytes = (this.#used[partition] as number) * recordBytes;
    if (bytes === 0) return;
    let fd = this.#files[partition];
    if (fd === undefined) {
      fd = openSync(this.#path(partition), "wx");
      this.#files[partition] = fd;
    }
    writeFully(fd, (this.#buffers[partition] as Uint8Array).subarray(0, bytes));
    this.#written[partition] = (this.#written[partition] as number) + bytes;
    this.#used[partition] = 0;
  }

  /** Writes what is left; the file of each partition, none for one without records. */
  end(): (FilePart | undefined)[] {
    return this.#written.map((_, partition) => {
      this.#flush(partition);
      const bytes = this.#written[partition] as number;
      return bytes === 0 ? undefined : recordPart(this.#path(partition), bytes);
    });
  }

  close(): void {
    for (const fd of this.#files) if (fd !== undefined) closeSync(fd);
  }
}
