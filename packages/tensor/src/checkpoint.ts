// A model's weights as one set of named tensors, whether they lie in one safetensors file or in
// shards behind an index, as on the Hugging Face hub. It knows files and names, nothing of models.

import { existsSync } from "node:fs";
import { basename, join } from "node:path";
import { CheckpointError } from "./errors.ts";
import { readSmallFile, SafetensorsFile } from "./safetensors.ts";
import { excerpt, maxHeaderBytes, parseJsonObject, type TensorInfo } from "./safetensors-header.ts";
import type { Tensor } from "./tensor.ts";

/** A tensor of a checkpoint, with the file (name only) that holds it. */
export type CheckpointTensorInfo = TensorInfo & { readonly file: string };

const singleFile = "model.safetensors";
const indexFile = "model.safetensors.index.json";

/** The index: tensor name → shard, every shard a plain file name. */
function readIndex(path: string): ReadonlyMap<string, string> {
  const index = parseJsonObject(path, "index", readSmallFile(path, maxHeaderBytes));
  const { weight_map: map } = index;
  if (typeof map !== "object" || map === null || Array.isArray(map)) {
    throw new CheckpointError(path, "weight_map", excerpt(map), "an object of tensor → file");
  }
  const shards = new Map<string, string>();
  for (const [name, file] of Object.entries(map as Record<string, unknown>)) {
    // A name, never a path: an index must not make us read files outside its folder.
    if (typeof file !== "string" || !/^[^/\\\0]+\.safetensors$/.test(file)) {
      throw new CheckpointError(
        path,
        `file of ${name}`,
        excerpt(file),
        "the name of a .safetensors file in the same folder",
      );
    }
    shards.set(name, file);
  }
  return shards;
}

/** Requires every shard to exist, so that the first error of an unfinished download is complete. */
function checkShards(dir: string, indexPath: string, names: readonly string[]): void {
  const missing = names.filter((name) => !existsSync(join(dir, name)));
  if (missing.length === 0) return;
  const list = missing.slice(0, 3).join(", ") + (missing.length > 3 ? ", ..." : "");
  throw new CheckpointError(
    indexPath,
    "weight_map",
    `naming ${missing.length} of ${names.length} files that are missing (${list})`,
    "files in the same folder (is the download complete?)",
  );
}

/** An open checkpoint. Disposing it closes its files; tensors already read stay. */
export class Checkpoint implements Disposable {
  readonly dir: string;
  /** Every tensor that can be read, in the index's or the file's order. */
  readonly tensors: ReadonlyMap<string, CheckpointTensorInfo>;
  /** Sum of those tensors' bytes. */
  readonly totalBytes: number;
  /** Which open file holds a tensor, those of unsupported dtypes included. */
  readonly #fileOf: ReadonlyMap<string, SafetensorsFile>;

  private constructor(dir: string, fileOf: ReadonlyMap<string, SafetensorsFile>) {
    this.dir = dir;
    this.#fileOf = fileOf;
    const tensors = new Map<string, CheckpointTensorInfo>();
    let totalBytes = 0;
    for (const [name, file] of fileOf) {
      const info = file.tensors.get(name);
      if (info === undefined) continue;
      tensors.set(name, { ...info, file: basename(file.path) });
      totalBytes += info.byteLength;
    }
    this.tensors = tensors;
    this.totalBytes = totalBytes;
  }

  /**
   * Opens the checkpoint in `dir`: `model.safetensors`, else the shards that
   * `model.safetensors.index.json` names.
   *
   * @throws CheckpointError if there is none, a shard is missing or damaged, or the index names a
   *   tensor that its shard does not hold.
   */
  static open(dir: string): Checkpoint {
    if (existsSync(join(dir, singleFile))) {
      const file = SafetensorsFile.open(join(dir, singleFile));
      const names = [...file.tensors.keys(), ...file.unsupported.keys()];
      return new Checkpoint(dir, new Map(names.map((name) => [name, file])));
    }
    const indexPath = join(dir, indexFile);
    if (!existsSync(indexPath)) {
      throw new CheckpointError(dir, "weights", "absent", `${singleFile} or ${indexFile}`);
    }
    return Checkpoint.#openShards(dir, indexPath);
  }

  static #openShards(dir: string, indexPath: string): Checkpoint {
    const shardOf = readIndex(indexPath);
    const names = [...new Set(shardOf.values())];
    checkShards(dir, indexPath, names);
    const files = new Map<string, SafetensorsFile>();
    try {
      for (const name of names) files.set(name, SafetensorsFile.open(join(dir, name)));
      const fileOf = new Map<string, SafetensorsFile>();
      for (const [name, shard] of shardOf) {
        const file = files.get(shard) as SafetensorsFile;
        if (!file.tensors.has(name) && !file.unsupported.has(name)) {
          throw new CheckpointError(
            indexPath,
            name,
            `placed in ${shard}, which does not hold it`,
            "a tensor of that file",
          );
        }
        fileOf.set(name, file);
      }
      return new Checkpoint(dir, fileOf);
    } catch (error) {
      for (const file of files.values()) file[Symbol.dispose]();
      throw error;
    }
  }

  /** Whether the checkpoint names this tensor, readable here or not. */
  has(name: string): boolean {
    return this.#fileOf.has(name);
  }

  /** @throws CheckpointError if there is no such tensor, or it has a dtype unknown here. */
  info(name: string): CheckpointTensorInfo {
    const file = this.#file(name);
    return this.tensors.get(name) ?? { ...file.info(name), file: basename(file.path) };
  }

  /** A new host tensor holding `name`'s data. */
  read(name: string): Tensor {
    return this.#file(name).read(name);
  }

  /** Reads all of `name`'s bytes into `target`, which must have exactly their length. */
  readInto(name: string, target: Uint8Array): void {
    this.#file(name).readInto(name, target);
  }

  /** Reads `target.byteLength` bytes of `name` from byte `start` of its data. */
  readRangeInto(name: string, start: number, target: Uint8Array): void {
    this.#file(name).readRangeInto(name, start, target);
  }

  [Symbol.dispose](): void {
    for (const file of this.#fileOf.values()) file[Symbol.dispose]();
  }

  #file(name: string): SafetensorsFile {
    const file = this.#fileOf.get(name);
    if (file !== undefined) return file;
    const held = `one of its ${this.#fileOf.size} tensors`;
    throw new CheckpointError(this.dir, name, "absent", held);
  }
}
