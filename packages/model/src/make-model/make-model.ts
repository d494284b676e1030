// Writes a checkpoint with random weights in the hub's layout, for tests and benches. It streams:
// memory stays small whatever the model's size.

import { existsSync, mkdirSync, readdirSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { byteSize, type DType, SafetensorsWriter } from "@open-infra/tensor";
import { fp8Block, parseConfig } from "../config.ts";
import { ConfigError } from "../errors.ts";
import type { JsonObject } from "../json-reader.ts";
import {
  countParameters,
  type ExpectedTensor,
  expectedTensors,
  scaleShape,
  scaleSuffix,
} from "../layout.ts";
import { type ModelPreset, modelPresets, type RandomDType } from "./presets.ts";
import { RandomBlocks } from "./random-blocks.ts";
import { randomTokenizer, randomTokenizerConfig } from "./random-tokenizer.ts";

export interface RandomModelOptions {
  /** A name of {@link modelPresets}; either this or `config`. */
  readonly preset?: string;
  /** The object of a config.json (quantization_config is set by `dtype`). */
  readonly config?: JsonObject;
  /** The same seed, preset and dtype give the same bytes. */
  readonly seed: number;
  /** Must not hold a model yet; made if absent. */
  readonly dir: string;
  /** @default the preset's, else bf16 */
  readonly dtype?: RandomDType;
  /** Largest weight file. @default 5e9 */
  readonly maxShardBytes?: number;
  readonly onProgress?: (doneBytes: number, totalBytes: number) => void;
  readonly signal?: AbortSignal;
}

export interface RandomModelResult {
  readonly parameters: number;
  /** Of the weight files' tensors. */
  readonly bytes: number;
}

/** One tensor of the files: its values are normal, or the scales of FP8 blocks. */
interface PlannedTensor {
  readonly name: string;
  readonly shape: readonly number[];
  readonly dtype: DType;
  readonly mean: number;
  readonly std: number;
  readonly scales: boolean;
}

/**
 * Writes config.json, weights (sharded with an index when large), a byte-level tokenizer, a chat
 * template and generation_config.json.
 *
 * @throws ConfigError for an unknown preset or a folder that already holds a model.
 */
export async function writeRandomModel(options: RandomModelOptions): Promise<RandomModelResult> {
  const { json, dtype } = resolve(options);
  const config = parseConfig(json);
  const tokenizer = randomTokenizer(config.vocabSize);
  prepareDir(options.dir);
  const expected = expectedTensors(config);
  const planned = expected.flatMap((tensor) => planTensor(tensor, dtype));
  const bytes = await writeWeights(planned, options);
  const write = (file: string, value: unknown): void => {
    writeFileSync(join(options.dir, file), `${JSON.stringify(value, null, 1)}\n`);
  };
  write("tokenizer.json", tokenizer);
  write("tokenizer_config.json", randomTokenizerConfig(config.maxPositionEmbeddings));
  write("generation_config.json", { bos_token_id: 0, eos_token_id: 1, do_sample: false });
  // Last, so that a folder with a config.json is a whole model.
  write("config.json", json);
  return { parameters: countParameters(expected), bytes };
}

function resolve(options: RandomModelOptions): { json: JsonObject; dtype: RandomDType } {
  const named = options.preset === undefined ? undefined : modelPresets[options.preset];
  if (options.preset !== undefined && !Object.hasOwn(modelPresets, options.preset)) {
    const names = Object.keys(modelPresets).join(", ");
    throw new ConfigError(
      "make-model",
      "preset",
      `"${options.preset}" is unknown; known: ${names}`,
    );
  }
  const base: JsonObject | undefined = options.config ?? (named as ModelPreset | undefined)?.config;
  if (base === undefined) throw new ConfigError("make-model", "preset", "or config must be given");
  const dtype = options.dtype ?? named?.dtype ?? "bf16";
  if (!["bf16", "fp8", "f32"].includes(dtype)) {
    throw new ConfigError("make-model", "dtype", `is "${dtype}"; allowed: bf16, fp8, f32`);
  }
  const { quantization_config: _, ...plain } = base;
  const quantised = {
    ...plain,
    quantization_config: {
      activation_scheme: "dynamic",
      fmt: "e4m3",
      quant_method: "fp8",
      weight_block_size: [fp8Block, fp8Block],
    },
  };
  return { json: dtype === "fp8" ? quantised : plain, dtype };
}

function prepareDir(dir: string): void {
  if (existsSync(dir)) {
    const model = readdirSync(dir).find(
      (file) => file === "config.json" || file.endsWith(".safetensors"),
    );
    if (model !== undefined) {
      throw new ConfigError(
        "make-model",
        dir,
        `already holds a model (${model}); name a new folder`,
      );
    }
  }
  mkdirSync(dir, { recursive: true });
}

/** e4m3 codes are drawn with this standard deviation; beyond 4.48 of them they saturate. */
const fp8Std = 100;

function planTensor(tensor: ExpectedTensor, dtype: RandomDType): PlannedTensor[] {
  const { name, shape, linear } = tensor;
  const columns = shape.at(-1) as number;
  const plain = { name, shape, mean: 0, scales: false };
  if (name.endsWith("e_score_correction_bias")) return [{ ...plain, dtype: "f32", std: 0.05 }];
  const stored = dtype === "f32" ? "f32" : "bf16";
  if (shape.length === 1) return [{ ...plain, dtype: stored, mean: 1, std: 0.1 }];
  // Embeddings of size 1 against layers that add about as much keep the context in the logits.
  if (name === "model.embed_tokens.weight") return [{ ...plain, dtype: stored, std: 1 }];
  const std = 1 / Math.sqrt(columns);
  if (dtype !== "fp8" || !linear) return [{ ...plain, dtype: stored, std }];
  return [
    { ...plain, dtype: "e4m3fn", std: fp8Std },
    {
      name: name + scaleSuffix,
      shape: scaleShape(shape),
      dtype: "f32",
      mean: 0,
      std: std / fp8Std,
      scales: true,
    },
  ];
}

function bytesOf({ dtype, shape }: PlannedTensor): number {
  return byteSize(
    dtype,
    shape.reduce((a, b) => a * b, 1),
  );
}

/** Cuts the list into files of at most `limit` bytes (a larger tensor gets a file of its own). */
function shard(planned: readonly PlannedTensor[], limit: number): PlannedTensor[][] {
  const shards: PlannedTensor[][] = [];
  let room = 0;
  for (const tensor of planned) {
    const bytes = bytesOf(tensor);
    if (shards.length === 0 || bytes > room) {
      shards.push([]);
      room = limit;
    }
    shards.at(-1)?.push(tensor);
    room -= bytes;
  }
  return shards;
}

async function writeWeights(
  planned: readonly PlannedTensor[],
  options: RandomModelOptions,
): Promise<number> {
  const shards = shard(planned, options.maxShardBytes ?? 5e9);
  const total = planned.reduce((sum, tensor) => sum + bytesOf(tensor), 0);
  const elements = planned.reduce((sum, { shape }) => sum + shape.reduce((a, b) => a * b, 1), 0);
  const blocks = new RandomBlocks(options.seed, elements);
  const weightMap: Record<string, string> = {};
  let done = 0;
  for (const [i, tensors] of shards.entries()) {
    const number = (n: number) => String(n).padStart(5, "0");
    const file =
      shards.length === 1
        ? "model.safetensors"
        : `model-${number(i + 1)}-of-${number(shards.length)}.safetensors`;
    using writer = new SafetensorsWriter(join(options.dir, file), tensors, {
      metadata: { format: "pt" },
    });
    for (const tensor of tensors) {
      weightMap[tensor.name] = file;
      for (const piece of piecesOf(tensor, blocks)) {
        writer.write(tensor.name, piece);
        done += piece.byteLength;
      }
      options.onProgress?.(done, total);
      await new Promise<void>((resolve) => setImmediate(resolve));
      options.signal?.throwIfAborted();
    }
    writer.finish();
  }
  if (shards.length > 1) {
    const index = { metadata: { total_size: total }, weight_map: weightMap };
    const path = join(options.dir, "model.safetensors.index.json");
    writeFileSync(path, `${JSON.stringify(index, null, 1)}\n`);
  }
  return total;
}

function piecesOf(tensor: PlannedTensor, blocks: RandomBlocks): Iterable<Uint8Array> {
  const count = tensor.shape.reduce((a, b) => a * b, 1);
  if (tensor.scales) {
    const scales = Float32Array.from({ length: count }, () => tensor.std * (0.5 + blocks.next()));
    return [new Uint8Array(scales.buffer)];
  }
  return blocks.pieces(tensor.dtype as "bf16" | "f32" | "e4m3fn", count, tensor.std, tensor.mean);
}
