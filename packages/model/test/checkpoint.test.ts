// What is wrong with a checkpoint or a step is said before anything is computed.

import {
  appendFileSync,
  cpSync,
  mkdtempSync,
  readdirSync,
  readFileSync,
  rmSync,
  statSync,
  truncateSync,
  writeFileSync,
} from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { createDevice, type Device } from "@open-infra/jit";
import { Checkpoint, InfraError, Tensor, writeSafetensors } from "@open-infra/tensor";
import { maxAbsDiff } from "@open-infra/testing";
import { afterAll, beforeAll, describe, expect, it } from "vitest";
import {
  type CausalLM,
  ConfigError,
  type ForwardBatch,
  ForwardError,
  loadModel,
  modelPresets,
  scoreTokens,
  WeightsError,
  writeRandomModel,
} from "../src/index.ts";

const scratch = mkdtempSync(join(tmpdir(), "open-infra-checkpoint-"));
let device: Device;
beforeAll(async () => {
  device = createDevice();
  await writeRandomModel({ preset: "tiny", seed: 1, dir: join(scratch, "tiny") });
  await writeRandomModel({ preset: "v3-tiny", seed: 1, dir: join(scratch, "v3-tiny") });
});
afterAll(() => {
  device[Symbol.dispose]();
  rmSync(scratch, { recursive: true, force: true });
});

let copies = 0;

/** A copy of a model whose tensors went through `change`. */
function rewritten(preset: string, change: (tensors: Record<string, Tensor>) => void): string {
  const dir = copyOf(preset);
  const tensors: Record<string, Tensor> = {};
  {
    using checkpoint = Checkpoint.open(dir);
    for (const name of checkpoint.tensors.keys()) tensors[name] = checkpoint.read(name);
  }
  change(tensors);
  writeSafetensors(join(dir, "model.safetensors"), tensors);
  return dir;
}

function copyOf(preset: string): string {
  const dir = join(scratch, `copy-${copies++}`);
  cpSync(join(scratch, preset), dir, { recursive: true });
  return dir;
}

function withConfig(preset: string, change: object): string {
  const dir = copyOf(preset);
  const path = join(dir, "config.json");
  writeFileSync(path, JSON.stringify({ ...JSON.parse(readFileSync(path, "utf8")), ...change }));
  return dir;
}

async function failure(dir: string, dtype: "auto" | "f32" | "w8a8" = "auto"): Promise<InfraError> {
  try {
    using _ = await loadModel(dir, { device, dtype });
  } catch (error) {
    expect(error).toBeInstanceOf(InfraError);
    return error as InfraError;
  }
  throw new Error("loadModel accepted a bad checkpoint");
}

const norm = "model.layers.1.post_attention_layernorm.weight";
const expert = "model.layers.2.mlp.experts.3.up_proj.weight";

describe("a bad checkpoint", () => {
  it("lacks tensors", async () => {
    const error = await failure(
      rewritten("tiny", (t) => {
        delete t[norm];
        delete t[expert];
      }),
    );
    expect(error).toBeInstanceOf(WeightsError);
    expect(error.message).toMatch(/lacks 2 of the \d+ tensors/);
    expect(error.message).toContain(norm);
    expect(error.message).toContain(expert);
  });

  it("holds tensors nobody asked for", async () => {
    const error = await failure(
      rewritten("tiny", (t) => {
        t["model.layers.0.mlp.router.weight"] = Tensor.empty([2], "f32");
      }),
    );
    expect(error.message).toMatch(/1 tensors .*model\.layers\.0\.mlp\.router\.weight/);
  });

  it("has a wrong shape or dtype", async () => {
    const shape = await failure(
      rewritten("tiny", (t) => {
        t[expert] = Tensor.empty([64, 127], "bf16");
      }),
    );
    expect(shape.message).toBe(`${expert} has shape [64,127]; config.json asks for [64,128]`);
    const dtype = await failure(
      rewritten("tiny", (t) => {
        t[norm] = Tensor.empty([128], "i32");
      }),
    );
    expect(dtype.message).toMatch(/has dtype i32; expected bf16, f16, f32/);
  });

  it("is FP8 without scales, with wrong scales, or without saying so", async () => {
    const scales = `${expert}_scale_inv`;
    const none = await failure(
      rewritten("v3-tiny", (t) => {
        delete t[scales];
      }),
    );
    expect(none.message).toContain(`its scales ${scales} are missing`);
    const wrong = await failure(
      rewritten("v3-tiny", (t) => {
        t[scales] = Tensor.empty([2, 2], "f32");
      }),
    );
    expect(wrong.message).toContain(`${scales} has shape [2,2]; config.json asks for [1,2]`);
    const nan = await failure(
      rewritten("v3-tiny", (t) => {
        t[scales] = Tensor.from([Number.NaN, 1], [1, 2], "f32");
      }),
    );
    expect(nan.message).toContain("not finite");
    const unsaid = await failure(withConfig("v3-tiny", { quantization_config: null }));
    expect(unsaid.message).toContain("no quantization_config");
  });

  it("is truncated, overlong, garbage or absent", async () => {
    const file = (dir: string) => join(dir, "model.safetensors");
    const short = copyOf("tiny");
    truncateSync(file(short), statSync(file(short)).size - 100);
    await failure(short);
    const long = copyOf("tiny");
    appendFileSync(file(long), "junk");
    await failure(long);
    const garbage = copyOf("tiny");
    writeFileSync(file(garbage), Buffer.alloc(4096, 0xff));
    await failure(garbage);
    const absent = copyOf("tiny");
    rmSync(file(absent));
    expect((await failure(absent)).message).toContain("model.safetensors");
    const missing = join(scratch, "nowhere");
    expect(await failure(missing)).toBeInstanceOf(ConfigError);
  });

  it("has an index that names a missing shard", async () => {
    const dir = join(scratch, "sharded");
    await writeRandomModel({ preset: "tiny", seed: 1, dir, maxShardBytes: 5e5 });
    const shard = readdirSync(dir).find((file) => file.startsWith("model-00002-of-")) as string;
    rmSync(join(dir, shard));
    expect((await failure(dir)).message).toContain(shard);
  });

  it("is not FP8 although w8a8 is asked", async () => {
    expect((await failure(join(scratch, "tiny"), "w8a8")).message).toMatch(/native FP8/);
  });

  it("stops loading when told to", async () => {
    const reason = new Error("enough");
    const load = loadModel(join(scratch, "tiny"), { device, signal: AbortSignal.abort(reason) });
    await expect(load).rejects.toBe(reason);
  });
});

describe("a good checkpoint", () => {
  const prompt = [0, 17, 5, 300, 299];

  it("gives the same logits in shards, in f32, and with prediction layers beside", async () => {
    const score = async (dir: string) => {
      using model = await loadModel(dir, { device, dtype: "f32" });
      return scoreTokens(model, prompt).last_logits;
    };
    const plain = await score(join(scratch, "tiny"));
    const sharded = join(scratch, "shards");
    await writeRandomModel({ preset: "tiny", seed: 1, dir: sharded, maxShardBytes: 5e5 });
    expect(await score(sharded)).toEqual(plain);
    const wide = rewritten("tiny", (t) => {
      for (const [name, tensor] of Object.entries(t)) t[name] = tensor.to("f32");
    });
    // Sums may be grouped otherwise for f32 weights; the values are the same.
    expect(maxAbsDiff(await score(wide), plain)).toBeLessThan(1e-5);
    const mtp = rewritten("tiny", (t) => {
      t["model.layers.3.eh_proj.weight"] = Tensor.empty([128, 256], "bf16");
    });
    const path = join(mtp, "config.json");
    const config = JSON.parse(readFileSync(path, "utf8"));
    writeFileSync(path, JSON.stringify({ ...config, num_nextn_predict_layers: 1 }));
    expect(await score(mtp)).toEqual(plain);
  });

  it("may mix dtypes in a stack", async () => {
    const mixed = rewritten("tiny", (t) => {
      t[expert] = (t[expert] as Tensor).to("f32");
      const query = "model.layers.0.self_attn.q_a_proj.weight";
      t[query] = (t[query] as Tensor).to("f32");
    });
    using a = await loadModel(join(scratch, "tiny"), { device, dtype: "f32" });
    using b = await loadModel(mixed, { device, dtype: "f32" });
    const [x, y] = [a, b].map((model) => scoreTokens(model, prompt).last_logits);
    expect(maxAbsDiff(x!, y!)).toBeLessThan(1e-5);
  });

  it("may tie its embeddings", async () => {
    const tied = rewritten("tiny", (t) => {
      delete t["lm_head.weight"];
    });
    const path = join(tied, "config.json");
    const config = JSON.parse(readFileSync(path, "utf8"));
    writeFileSync(path, JSON.stringify({ ...config, tie_word_embeddings: true }));
    const untied = rewritten("tiny", (t) => {
      t["lm_head.weight"] = t["model.embed_tokens.weight"] as Tensor;
    });
    using a = await loadModel(tied, { device, dtype: "f32" });
    using b = await loadModel(untied, { device, dtype: "f32" });
    expect(scoreTokens(a, prompt)).toEqual(scoreTokens(b, prompt));
  });

  it("reports progress, sizes and its cache's size", async () => {
    const seen: [number, number][] = [];
    using model = await loadModel(join(scratch, "v3-tiny"), {
      device,
      dtype: "bf16",
      onProgress: (done, total) => seen.push([done, total]),
    });
    const [done, total] = seen.at(-1) as [number, number];
    expect(done).toBe(total);
    expect(model.parameters).toBeGreaterThan(1e6);
    expect(model.activeWeightBytes).toBeLessThan(total);
    using cache = model.createKvCache({ numBlocks: 3, blockTokens: 16 });
    expect(cache.bytesPerBlock).toBe(model.kvBytesPerBlock(16));
    expect(cache.bytesPerBlock).toBe(3 * 16 * (64 + 16) * 2);
  });
});

describe("a bad step", () => {
  let model: CausalLM;
  beforeAll(async () => {
    model = await loadModel(join(scratch, "tiny"), { device });
  });
  afterAll(() => model[Symbol.dispose]());

  const good: ForwardBatch = {
    tokenIds: Int32Array.of(1, 2, 3),
    sequences: [{ queryTokens: 3, contextTokens: 3, blocks: [0] }],
    logitRows: Int32Array.of(2),
  };
  const slice = good.sequences[0]!;

  it.each([
    [{ tokenIds: Int32Array.of(1, 2, 1024) }, /token id 1024; the vocabulary has 1024/],
    [{ tokenIds: Int32Array.of(1, -2, 3) }, /token id -2/],
    [{ tokenIds: Int32Array.of(1, 2) }, /2 token ids.*sum to 3/],
    [{ tokenIds: new Int32Array(0), sequences: [] }, /at least 1/],
    [{ logitRows: Int32Array.of(3) }, /logit rows must ascend within 0\.\.2/],
    [{ logitRows: Int32Array.of(1, 1) }, /1 follows 1/],
    [{ sequences: [{ ...slice, queryTokens: 0 }] }, /0 query tokens/],
    [{ sequences: [{ ...slice, contextTokens: 2 }] }, /fewer than its 3/],
    [{ sequences: [{ ...slice, contextTokens: 17 }] }, /1 cache blocks; its 17 tokens need 2/],
    [{ sequences: [{ ...slice, blocks: [2] }] }, /cache block 2; the cache has 2/],
    [
      { sequences: [{ ...slice, contextTokens: 4097, blocks: [] }] },
      /max_position_embeddings is 4096/,
    ],
  ] as [Partial<ForwardBatch>, RegExp][])("is refused: %o", (change, message) => {
    using cache = model.createKvCache({ numBlocks: 2, blockTokens: 16 });
    const attempt = () => model.forward({ ...good, ...change }, cache);
    expect(attempt).toThrow(ForwardError);
    expect(attempt).toThrow(message);
  });

  it("is refused with a foreign cache, no tokens, or after disposal", async () => {
    using other = await loadModel(join(scratch, "v3-tiny"), { device, dtype: "bf16" });
    using foreign = other.createKvCache({ numBlocks: 2, blockTokens: 16 });
    expect(() => model.forward(good, foreign)).toThrow(ForwardError);
    expect(() => model.createKvCache({ numBlocks: 0, blockTokens: 16 })).toThrow(/numBlocks is 0/);
    expect(() => scoreTokens(model, [])).toThrow(/no tokens/);
    const gone = await loadModel(join(scratch, "tiny"), { device });
    using cache = gone.createKvCache({ numBlocks: 1, blockTokens: 16 });
    gone[Symbol.dispose]();
    expect(() => gone.forward(good, cache)).toThrow(/disposed/);
  });

  it("may want no logits", () => {
    using cache = model.createKvCache({ numBlocks: 2, blockTokens: 16 });
    const logits = model.forward({ ...good, logitRows: new Int32Array(0) }, cache);
    expect(logits.shape).toEqual([0, 1024]);
  });
});

describe("make-model", () => {
  it("writes the same bytes for the same seed, and others for another", async () => {
    const bytes = async (name: string, seed: number) => {
      const dir = join(scratch, name);
      await writeRandomModel({ preset: "tiny", seed, dir });
      return readFileSync(join(dir, "model.safetensors"));
    };
    const first = await bytes("again", 1);
    expect(first.equals(readFileSync(join(scratch, "tiny", "model.safetensors")))).toBe(true);
    expect(first.equals(await bytes("other", 2))).toBe(false);
  });

  it.each(["bf16", "fp8", "f32"] as const)("makes sane logits in %s", async (dtype) => {
    const dir = join(scratch, `sane-${dtype}`);
    const { parameters, bytes } = await writeRandomModel({ preset: "tiny", seed: 3, dir, dtype });
    using model = await loadModel(dir, { device });
    expect(model.parameters).toBe(parameters);
    expect(bytes).toBeLessThan(5e6);
    const prompt = Array.from({ length: 40 }, (_, i) => (i * 37) % 1024);
    const { last_logits, token_logprobs } = scoreTokens(model, prompt);
    const std = Math.sqrt(last_logits.reduce((sum, x) => sum + x * x, 0) / last_logits.length);
    expect(std).toBeGreaterThan(0.5);
    expect(std).toBeLessThan(2);
    expect(token_logprobs.every((x) => Number.isFinite(x))).toBe(true);
  });

  it("refuses unknown presets, dtypes and folders in use", async () => {
    const make = (options: object) =>
      writeRandomModel({ preset: "tiny", seed: 1, dir: join(scratch, "refused"), ...options });
    await expect(make({ preset: "huge" })).rejects.toThrow(/"huge" is unknown; known: tiny/);
    await expect(make({ dtype: "int4" })).rejects.toThrow(/"int4"; allowed: bf16/);
    await expect(make({ dir: join(scratch, "tiny") })).rejects.toThrow(/already holds a model/);
    const config = { ...modelPresets.tiny!.config, vocab_size: 100 };
    await expect(make({ preset: undefined, config })).rejects.toThrow(/vocab_size is 100/);
  });
});
