// Reads safetensors files by position, straight into tensor memory: no whole-file copy, no mapping,
// so a file cut short under us is an error and not a signal. Writing is in safetensors-writer.ts,
// models of many files in checkpoint.ts.

import { closeSync, fstatSync, openSync, readSync, statSync } from "node:fs";
import { CheckpointError, StorageError } from "./errors.ts";
import {
  parseHeader,
  parseHeaderLength,
  type SafetensorsHeader,
  supportedFileDtypes,
  type TensorInfo,
} from "./safetensors-header.ts";
import { Tensor } from "./tensor.ts";

/** Bytes per read call: below the 2 GiB limit of one call, large enough to cost nothing. */
const chunkBytes = 64 * 1024 * 1024;

/**
 * Fills `target` from `position` of an open file. Reads are positional, so several threads or
 * several ranges of one file do not disturb each other.
 *
 * @throws CheckpointError if the file ends early or the system refuses.
 */
function readFully(
  fd: number,
  file: string,
  key: string,
  target: Uint8Array,
  position: number,
): void {
  let done = 0;
  while (done < target.byteLength) {
    let got: number;
    try {
      const length = Math.min(chunkBytes, target.byteLength - done);
      got = readSync(fd, target, done, length, position + done);
    } catch (cause) {
      throw new CheckpointError(file, key, `unreadable (${reasonOf(cause)})`, "readable bytes", {
        cause,
      });
    }
    if (got === 0) {
      throw new CheckpointError(
        file,
        key,
        `cut off at byte ${position + done}`,
        `${target.byteLength} bytes from byte ${position}`,
      );
    }
    done += got;
  }
}

/** The sentence of a caught system error. */
export function reasonOf(cause: unknown): string {
  return cause instanceof Error ? cause.message : String(cause);
}

/**
 * Opens a regular file for reading; anything else (a folder, a pipe) is refused before it blocks.
 */
function openFile(path: string): { readonly fd: number; readonly bytes: number } {
  try {
    if (statSync(path).isFile()) {
      const fd = openSync(path, "r");
      return { fd, bytes: fstatSync(fd).size };
    }
  } catch (cause) {
    throw new CheckpointError(path, "file", reasonOf(cause), "a readable safetensors file", {
      cause,
    });
  }
  throw new CheckpointError(path, "file", "not a regular file", "a readable safetensors file");
}

/** Reads a small file whole, refusing one larger than `maxBytes`. */
export function readSmallFile(path: string, maxBytes: number): Uint8Array {
  const { fd, bytes } = openFile(path);
  try {
    if (bytes > maxBytes) {
      throw new CheckpointError(path, "file", `${bytes} bytes`, `at most ${maxBytes} bytes`);
    }
    const content = new Uint8Array(bytes);
    readFully(fd, path, "file", content, 0);
    return content;
  } finally {
    closeSync(fd);
  }
}

function readHeader(fd: number, path: string, fileBytes: number): SafetensorsHeader {
  const prefix = new Uint8Array(Math.min(8, fileBytes));
  readFully(fd, path, "header", prefix, 0);
  const json = new Uint8Array(parseHeaderLength(path, prefix, fileBytes));
  readFully(fd, path, "header", json, 8);
  return parseHeader(path, json, fileBytes);
}

/** An open safetensors file: its header checked, its data read on demand. */
export class SafetensorsFile implements Disposable {
  readonly path: string;
  readonly metadata: Readonly<Record<string, string>>;
  /** Every tensor that can be read here. */
  readonly tensors: ReadonlyMap<string, TensorInfo>;
  /** Tensors of a dtype this project does not have, with the file's name for it. */
  readonly unsupported: ReadonlyMap<string, string>;
  #fd: number | undefined;

  private constructor(path: string, fd: number, header: SafetensorsHeader) {
    this.path = path;
    this.#fd = fd;
    this.metadata = header.metadata;
    this.tensors = header.tensors;
    this.unsupported = header.unsupported;
  }

  /**
   * Opens `path` and checks its header against its size.
   *
   * @throws CheckpointError for a missing, cut off or malformed file.
   */
  static open(path: string): SafetensorsFile {
    const { fd, bytes } = openFile(path);
    try {
      return new SafetensorsFile(path, fd, readHeader(fd, path, bytes));
    } catch (error) {
      closeSync(fd);
      throw error;
    }
  }

  /** @throws CheckpointError if the file has no such tensor, or one of a dtype unknown here. */
  info(name: string): TensorInfo {
    const info = this.tensors.get(name);
    if (info !== undefined) return info;
    const dtype = this.unsupported.get(name);
    throw dtype === undefined
      ? new CheckpointError(this.path, name, "absent", `one of its ${this.tensors.size} tensors`)
      : new CheckpointError(this.path, `dtype of ${name}`, dtype, supportedFileDtypes);
  }

  /** A new host tensor holding `name`'s data. */
  read(name: string): Tensor {
    const { dtype, shape } = this.info(name);
    const tensor = Tensor.empty(shape, dtype, name);
    this.readInto(name, tensor.bytes());
    return tensor;
  }

  /** Reads all of `name`'s bytes into `target`, which must have exactly their length. */
  readInto(name: string, target: Uint8Array): void {
    const { byteLength } = this.info(name);
    if (target.byteLength !== byteLength) {
      throw new CheckpointError(
        this.path,
        `target of ${name}`,
        `${target.byteLength} bytes`,
        `${byteLength} bytes`,
      );
    }
    this.readRangeInto(name, 0, target);
  }

  /**
   * Reads `target.byteLength` bytes of `name` from byte `start` of its data: a part, or one
   * thread's share.
   */
  readRangeInto(name: string, start: number, target: Uint8Array): void {
    const { byteOffset, byteLength } = this.info(name);
    if (this.#fd === undefined) throw new StorageError(`${this.path} was read after disposal`);
    if (!Number.isSafeInteger(start) || start < 0 || start + target.byteLength > byteLength) {
      throw new CheckpointError(
        this.path,
        `range of ${name}`,
        `${target.byteLength} bytes from ${start}`,
        `a range inside its ${byteLength} bytes`,
      );
    }
    readFully(this.#fd, this.path, name, target, byteOffset + start);
  }

  [Symbol.dispose](): void {
    if (this.#fd === undefined) return;
    closeSync(this.#fd);
    this.#fd = undefined;
  }
}
