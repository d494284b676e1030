// Writes safetensors files tensor by tensor. The file grows beside its final path and is renamed
// into place when whole, so that a reader never sees half of one. Reading is in safetensors.ts.

import { randomUUID } from "node:crypto";
import { closeSync, fsyncSync, openSync, renameSync, rmSync, writeSync } from "node:fs";
import { CheckpointError, StorageError } from "./errors.ts";
import { formatHeader, type TensorInfo, type TensorSpec } from "./safetensors-header.ts";
import { Tensor } from "./tensor.ts";

const chunkBytes = 64 * 1024 * 1024;

function writeFully(fd: number, bytes: Uint8Array, position: number): void {
  for (let done = 0; done < bytes.byteLength; ) {
    const length = Math.min(chunkBytes, bytes.byteLength - done);
    done += writeSync(fd, bytes, done, length, position + done);
  }
}

/** What a writer may be told beside the tensors. */
export interface SafetensorsWriterOptions {
  /** Free text beside the tensors, such as `{ format: "pt" }`. */
  readonly metadata?: Readonly<Record<string, string>>;
}

/**
 * A safetensors file in the making. The header is fixed by the declared tensors; data then comes in
 * any order, a tensor at once or in consecutive pieces. Disposing before `finish` leaves no trace.
 */
export class SafetensorsWriter implements Disposable {
  readonly path: string;
  readonly #aside: string;
  readonly #tensors: ReadonlyMap<string, TensorInfo>;
  readonly #written = new Map<string, number>();
  #fd: number | undefined;

  constructor(path: string, specs: Iterable<TensorSpec>, options: SafetensorsWriterOptions = {}) {
    this.path = path;
    this.#aside = `${path}.${randomUUID()}.tmp`;
    const { header, tensors } = formatHeader(path, [...specs], options.metadata ?? {});
    this.#tensors = tensors;
    try {
      this.#fd = openSync(this.#aside, "wx");
      writeFully(this.#fd, header, 0);
    } catch (cause) {
      this[Symbol.dispose]();
      throw new StorageError(`cannot write ${path}: ${String(cause)}`, { cause });
    }
  }

  /**
   * Appends to tensor `name`: all of a tensor (of the declared dtype and shape), or its next bytes.
   *
   * @throws CheckpointError if `name` was not declared, or more came than its shape holds.
   */
  write(name: string, data: Uint8Array | Tensor): void {
    const fd = this.#open();
    const info = this.#tensors.get(name);
    if (info === undefined) {
      throw new CheckpointError(this.path, name, "not declared", "a tensor declared to the writer");
    }
    const before = this.#written.get(name) ?? 0;
    const bytes = data instanceof Tensor ? this.#bytesOf(info, data) : data;
    if (before + bytes.byteLength > info.byteLength) {
      throw new CheckpointError(
        this.path,
        `data of ${name}`,
        `${before + bytes.byteLength} bytes`,
        `${info.byteLength} bytes for ${info.dtype}[${info.shape}]`,
      );
    }
    try {
      writeFully(fd, bytes, info.byteOffset + before);
    } catch (cause) {
      throw new StorageError(`cannot write ${name} to ${this.path}: ${String(cause)}`, { cause });
    }
    this.#written.set(name, before + bytes.byteLength);
  }

  /**
   * Makes the file durable and moves it into place.
   *
   * @throws CheckpointError if a tensor's data is incomplete; the file is then not published.
   */
  finish(): void {
    const fd = this.#open();
    for (const { name, byteLength } of this.#tensors.values()) {
      const got = this.#written.get(name) ?? 0;
      if (got !== byteLength) {
        throw new CheckpointError(
          this.path,
          `data of ${name}`,
          `${got} bytes`,
          `${byteLength} bytes`,
        );
      }
    }
    try {
      fsyncSync(fd);
      closeSync(fd);
      this.#fd = undefined;
      renameSync(this.#aside, this.path);
    } catch (cause) {
      this[Symbol.dispose]();
      rmSync(this.#aside, { force: true });
      throw new StorageError(`cannot publish ${this.path}: ${String(cause)}`, { cause });
    }
  }

  /** Throws the unfinished file away; nothing to do after `finish`. */
  [Symbol.dispose](): void {
    if (this.#fd === undefined) return;
    closeSync(this.#fd);
    this.#fd = undefined;
    rmSync(this.#aside, { force: true });
  }

  #open(): number {
    if (this.#fd === undefined) throw new StorageError(`${this.path} is no longer being written`);
    return this.#fd;
  }

  #bytesOf(info: TensorInfo, tensor: Tensor): Uint8Array {
    if (tensor.dtype !== info.dtype || `${tensor.shape}` !== `${info.shape}`) {
      throw new CheckpointError(
        this.path,
        info.name,
        `${tensor.dtype}[${tensor.shape}]`,
        `${info.dtype}[${info.shape}] as declared`,
      );
    }
    return tensor.contiguous().bytes();
  }
}

function* named(
  tensors: Iterable<Tensor> | Readonly<Record<string, Tensor>>,
  path: string,
): Iterable<[string, Tensor]> {
  if (!(Symbol.iterator in tensors)) {
    yield* Object.entries(tensors);
    return;
  }
  for (const tensor of tensors as Iterable<Tensor>) {
    if (tensor.name === undefined) {
      throw new CheckpointError(path, tensor.describe(), "without a name", "a named tensor");
    }
    yield [tensor.name, tensor];
  }
}

/** Writes host tensors to `path` under their own names, or under the keys of a record. */
export function writeSafetensors(
  path: string,
  tensors: Iterable<Tensor> | Readonly<Record<string, Tensor>>,
  options: SafetensorsWriterOptions = {},
): void {
  const entries = [...named(tensors, path)];
  const specs = entries.map(([name, { dtype, shape }]) => ({ name, dtype, shape }));
  using writer = new SafetensorsWriter(path, specs, options);
  for (const [name, tensor] of entries) writer.write(name, tensor);
  writer.finish();
}
