// Reads a checkpoint into the tensors that the forward pass uses. Weights keep the dtype they are
// stored in; matrices that multiply the same input are stacked so that one GEMM serves them, and
// are read straight into their place in the stack. Names and shapes are checked first, in
// layout.ts.

import type { Device } from "@open-infra/jit";
import { Checkpoint, dtypeBits, Tensor } from "@open-infra/tensor";
import type { ComputeDType } from "./api.ts";
import { fp8Block, type ModelConfig } from "./config.ts";
import { WeightsError } from "./errors.ts";
import { checkLayout, countParameters, layerPrefix, scaleSuffix } from "./layout.ts";

/** A matrix [N, K] or, for experts, [G, N, K]; with block scales if it is FP8. */
export interface LinearWeight {
  readonly data: Tensor;
  /** f32 [(G,) ceil(N / 128), ceil(K / 128)] */
  readonly scales: Tensor<"f32"> | undefined;
}

/**
 * Matrices stacked along N. FP8 parts start at multiples of 128, so that scale blocks stay whole.
 */
export interface StackedWeight extends LinearWeight {
  /** First row of each part. */
  readonly offsets: readonly number[];
  /** N, rows between the parts included. */
  readonly rows: number;
}

export interface MlpWeights {
  /** gate_proj and up_proj. */
  readonly gateUp: StackedWeight;
  readonly down: LinearWeight;
  /** I */
  readonly width: number;
}

export interface MoeWeights {
  /** As stored, [E, H]. */
  readonly gate: Tensor;
  readonly bias: Tensor<"f32"> | undefined;
  /** [E, …] */
  readonly experts: MlpWeights;
  readonly shared: MlpWeights | undefined;
}

export interface LayerWeights {
  readonly inputNorm: Tensor<"f32">;
  /** q_a_proj (or q_proj) and kv_a_proj_with_mqa. */
  readonly qkv: StackedWeight;
  readonly qNorm: Tensor<"f32"> | undefined;
  readonly qB: LinearWeight | undefined;
  readonly kvNorm: Tensor<"f32">;
  /** [h, r, dn]: the key half of kv_b_proj, per head and transposed. */
  readonly wUk: Tensor;
  /** [h, dv, r]: the value half. */
  readonly wUv: Tensor;
  readonly o: LinearWeight;
  readonly postNorm: Tensor<"f32">;
  readonly mlp: MlpWeights | undefined;
  readonly moe: MoeWeights | undefined;
}

export interface ModelWeights extends Disposable {
  readonly embed: Tensor;
  readonly layers: readonly LayerWeights[];
  readonly norm: Tensor<"f32">;
  readonly lmHead: Tensor;
  /** Elements of the checkpoint's weights, scales not counted. */
  readonly parameters: number;
  /** True if any linear layer is FP8. */
  readonly fp8: boolean;
}

/** Tensors from this size on are asked to lie in huge pages. */
const hugeFromBytes = 2 ** 21;

export interface WeightOptions {
  /** Whose kernels will read the weights. */
  readonly device: Device;
  readonly dtype: ComputeDType;
  readonly onProgress?: ((doneBytes: number, totalBytes: number) => void) | undefined;
  readonly signal?: AbortSignal | undefined;
}

/**
 * Where each part of a stack begins, parts starting at multiples of `align`, and its rows in all.
 */
function stackRows(
  partRows: readonly number[],
  align: number,
): { readonly offsets: readonly number[]; readonly rows: number } {
  const offsets: number[] = [];
  let rows = 0;
  for (const own of partRows) {
    const at = Math.ceil(rows / align) * align;
    offsets.push(at);
    rows = at + own;
  }
  return { offsets, rows };
}

/** The raw bits of a 16- or 32-bit tensor, for moving elements about. */
function bitsOf(tensor: Tensor): Uint16Array | Uint32Array {
  const { buffer, byteOffset, byteLength } = tensor.bytes();
  return dtypeBits[tensor.dtype] === 16
    ? new Uint16Array(buffer, byteOffset, byteLength / 2)
    : new Uint32Array(buffer, byteOffset, byteLength / 4);
}

/** Bytes read between two looks at the abort signal and turns of the event loop. */
const bytesPerTurn = 32 * 1024 * 1024;

/**
 * Loads every weight. Peak memory is the checkpoint's own size and one layer's kv_b_proj.
 *
 * @throws WeightsError, CheckpointError, or the signal's reason.
 */
export async function loadWeights(
  dir: string,
  config: ModelConfig,
  options: WeightOptions,
): Promise<ModelWeights> {
  using checkpoint = Checkpoint.open(dir);
  const expected = checkLayout(config, checkpoint.tensors);
  const reader = new WeightReader(checkpoint, expected, options);
  try {
    const embed = await reader.plain("model.embed_tokens.weight");
    const layers: LayerWeights[] = [];
    for (let layer = 0; layer < config.numLayers; layer++) {
      layers.push(await loadLayer(reader, config, layer));
    }
    const norm = await reader.f32("model.norm.weight");
    const lmHead = config.tieWordEmbeddings ? embed : await reader.plain("lm_head.weight");
    return {
      embed,
      layers,
      norm,
      lmHead,
      parameters: countParameters(expected),
      fp8: reader.sawFp8,
      [Symbol.dispose]: () => reader.disposeAll(),
    };
  } catch (error) {
    reader.disposeAll();
    throw error;
  }
}

async function loadLayer(
  reader: WeightReader,
  config: ModelConfig,
  layer: number,
): Promise<LayerWeights> {
  const prefix = layerPrefix(layer);
  const attention = `${prefix}self_attn.`;
  const compressed = config.qLoraRank !== undefined;
  const query = compressed ? "q_a_proj" : "q_proj";
  const inputNorm = await reader.f32(`${prefix}input_layernorm.weight`);
  const qkv = await reader.stack([
    [`${attention}${query}.weight`, `${attention}kv_a_proj_with_mqa.weight`],
  ]);
  const qNorm = compressed ? await reader.f32(`${attention}q_a_layernorm.weight`) : undefined;
  const qB = compressed ? await reader.linear(`${attention}q_b_proj.weight`) : undefined;
  const kvNorm = await reader.f32(`${attention}kv_a_layernorm.weight`);
  const absorbed = await reader.absorbed(`${attention}kv_b_proj.weight`, config);
  const o = await reader.linear(`${attention}o_proj.weight`);
  const postNorm = await reader.f32(`${prefix}post_attention_layernorm.weight`);
  const moe = config.moeLayers[layer] ? await loadMoe(reader, config, `${prefix}mlp.`) : undefined;
  const mlp = moe === undefined ? await loadMlp(reader, [`${prefix}mlp.`]) : undefined;
  return { inputNorm, qkv, qNorm, qB, kvNorm, ...absorbed, o, postNorm, mlp, moe };
}

/** One MLP, or those of many experts stacked along a first dimension. */
async function loadMlp(
  reader: WeightReader,
  prefixes: readonly string[],
  experts = false,
): Promise<MlpWeights> {
  const gateUp = await reader.stack(
    prefixes.map((prefix) => [`${prefix}gate_proj.weight`, `${prefix}up_proj.weight`]),
    experts,
  );
  const down = await reader.stack(
    prefixes.map((prefix) => [`${prefix}down_proj.weight`]),
    experts,
  );
  return { gateUp, down, width: down.data.dim(-1) };
}

async function loadMoe(
  reader: WeightReader,
  config: ModelConfig,
  prefix: string,
): Promise<MoeWeights> {
  const experts = Array.from(
    { length: config.routing?.experts ?? 0 },
    (_, e) => `${prefix}experts.${e}.`,
  );
  const biased = config.routing?.method === "noaux_tc";
  return {
    gate: await reader.plain(`${prefix}gate.weight`),
    bias: biased ? await reader.f32(`${prefix}gate.e_score_correction_bias`) : undefined,
    experts: await loadMlp(reader, experts, true),
    shared:
      config.sharedExperts > 0 ? await loadMlp(reader, [`${prefix}shared_experts.`]) : undefined,
  };
}

/** Reads tensors one after the other, keeping count, and owns what it has read. */
class WeightReader {
  readonly #checkpoint: Checkpoint;
  readonly #options: WeightOptions;
  readonly #owned: Tensor[] = [];
  readonly #totalBytes: number;
  #doneBytes = 0;
  #bytesThisTurn = 0;
  sawFp8 = false;

  constructor(
    checkpoint: Checkpoint,
    expected: readonly { readonly name: string }[],
    options: WeightOptions,
  ) {
    this.#checkpoint = checkpoint;
    this.#options = options;
    let total = 0;
    for (const { name } of expected) {
      total += checkpoint.info(name).byteLength;
      if (this.#isFp8(name)) total += checkpoint.info(name + scaleSuffix).byteLength;
    }
    this.#totalBytes = total;
  }

  disposeAll(): void {
    for (const tensor of this.#owned) tensor[Symbol.dispose]();
  }

  /** A tensor as stored. */
  async plain(name: string): Promise<Tensor> {
    const { dtype, shape } = this.#checkpoint.info(name);
    const tensor = this.#own(Tensor.empty(shape, dtype, name));
    await this.#into(name, tensor.bytes());
    return tensor;
  }

  /** A small tensor, widened. */
  async f32(name: string): Promise<Tensor<"f32">> {
    const stored = this.#checkpoint.read(name);
    await this.#count(stored.byteLength);
    return this.#own(stored.dtype === "f32" ? (stored as Tensor<"f32">) : stored.to("f32"));
  }

  async linear(name: string): Promise<LinearWeight> {
    return this.stack([[name]]);
  }

  /**
   * Stacks each group's parts along N, and with `lead` the groups (experts) along a first
   * dimension. Parts of different dtypes are widened to f32 together.
   */
  async stack(groups: readonly (readonly string[])[], lead = false): Promise<StackedWeight> {
    const info = (name: string) => this.#checkpoint.info(name);
    const template = groups[0] as readonly string[];
    const first = template[0] as string;
    const mixed = new Set(groups.flat().map((name) => info(name).dtype)).size > 1;
    const dtype = mixed ? "f32" : info(first).dtype;
    const scaled = dtype === "e4m3fn";
    const partRows = template.map((name) => info(name).shape[0] as number);
    const { offsets, rows } = stackRows(partRows, scaled ? fp8Block : 1);
    const columns = info(first).shape[1] as number;
    const outer = lead ? [groups.length] : [];
    const label = lead ? `${first} and its like` : first;
    const data = this.#own(Tensor.empty([...outer, rows, columns], dtype, label));
    const blocks = [Math.ceil(rows / fp8Block), Math.ceil(columns / fp8Block)] as const;
    const scales = scaled
      ? this.#own(Tensor.empty([...outer, ...blocks], "f32", label + scaleSuffix))
      : undefined;
    const rowBytes = (columns * dtypeBits[dtype]) / 8;
    for (const [g, group] of groups.entries()) {
      for (const [i, name] of group.entries()) {
        const row = g * rows + (offsets[i] as number);
        const end = row + (partRows[i] as number);
        const target = data.bytes().subarray(row * rowBytes, end * rowBytes);
        if (mixed) target.set(new Uint8Array((await this.#values(name)).buffer));
        else await this.#into(name, target);
        if (scales === undefined) continue;
        const block = g * blocks[0] + (offsets[i] as number) / fp8Block;
        scales.raw().set(await this.#scalesOf(name), block * blocks[1]);
      }
    }
    return { data, scales, offsets, rows };
  }

  /**
   * Splits kv_b_proj [h·(dn + dv), r] per head into W_UK, transposed so that both are the right
   * side of an NT product, and W_UV. FP8 is dequantised: to f32 for exact arithmetic, else to bf16.
   */
  async absorbed(name: string, config: ModelConfig): Promise<Pick<LayerWeights, "wUk" | "wUv">> {
    const { numHeads, qkNopeHeadDim: dn, vHeadDim: dv, kvLoraRank: rank } = config;
    const stored = await this.#readForSplit(name);
    const { dtype } = stored;
    const wUk = this.#own(Tensor.empty([numHeads, rank, dn], dtype, `${name} keys`));
    const wUv = this.#own(Tensor.empty([numHeads, dv, rank], dtype, `${name} values`));
    const [from, k, v] = [bitsOf(stored), bitsOf(wUk), bitsOf(wUv)];
    for (let head = 0; head < numHeads; head++) {
      const start = head * (dn + dv) * rank;
      for (let c = 0; c < dn; c++) {
        const row = start + c * rank;
        for (let r = 0; r < rank; r++) k[(head * rank + r) * dn + c] = from[row + r] as number;
      }
      v.set(from.subarray(start + dn * rank, start + (dn + dv) * rank), head * dv * rank);
    }
    stored[Symbol.dispose]();
    return { wUk, wUv };
  }

  async #readForSplit(name: string): Promise<Tensor> {
    if (this.#isFp8(name)) {
      const { shape } = this.#checkpoint.info(name);
      const dtype = this.#options.dtype === "f32" ? "f32" : "bf16";
      return Tensor.from(await this.#values(name), shape, dtype, name);
    }
    const stored = this.#checkpoint.read(name);
    await this.#count(stored.byteLength);
    return stored;
  }

  /** A weight's values as f32, its scales applied. */
  async #values(name: string): Promise<Float32Array> {
    const stored = this.#checkpoint.read(name);
    await this.#count(stored.byteLength);
    const values = stored.toFloat32();
    if (!this.#isFp8(name)) return values;
    this.sawFp8 = true;
    const scales = await this.#scalesOf(name);
    const [rows, columns] = [stored.dim(0), stored.dim(1)];
    const across = Math.ceil(columns / fp8Block);
    for (let i = 0, row = 0; row < rows; row++) {
      const block = Math.floor(row / fp8Block) * across;
      for (let c = 0; c < columns; c++, i++) {
        values[i] = (values[i] as number) * (scales[block + Math.floor(c / fp8Block)] as number);
      }
    }
    return values;
  }

  async #scalesOf(name: string): Promise<Float32Array> {
    const stored = this.#checkpoint.read(name + scaleSuffix);
    await this.#count(stored.byteLength);
    const scales = stored.toFloat32();
    if (!scales.every((x) => Number.isFinite(x))) {
      throw new WeightsError(
        name + scaleSuffix,
        `${name}${scaleSuffix} holds a scale that is not finite`,
      );
    }
    return scales;
  }

  #isFp8(name: string): boolean {
    return this.#checkpoint.info(name).dtype === "e4m3fn";
  }

  #own<T extends Tensor>(tensor: T): T {
    this.#owned.push(tensor);
    // Before the first byte arrives: a decode step streams through all of it, page after page.
    if (tensor.byteLength >= hugeFromBytes) this.#options.device.adviseHuge?.(tensor);
    return tensor;
  }

  async #into(name: string, target: Uint8Array): Promise<void> {
    if (this.#isFp8(name)) this.sawFp8 = true;
    this.#checkpoint.readInto(name, target);
    await this.#count(target.byteLength);
  }

  /** Counts bytes; now and then lets others run and looks at the abort signal. */
  async #count(bytes: number): Promise<void> {
    this.#doneBytes += bytes;
    this.#bytesThisTurn += bytes;
    if (this.#bytesThisTurn < bytesPerTurn && this.#doneBytes < this.#totalBytes) return;
    this.#bytesThisTurn = 0;
    this.#options.onProgress?.(this.#doneBytes, this.#totalBytes);
    await new Promise<void>((resolve) => setImmediate(resolve));
    this.#options.signal?.throwIfAborted();
  }
}
