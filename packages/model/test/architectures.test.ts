// Architectures off the beaten track: the compiled kernels agree with the plain reference device,
// in every way of computing. That the reference is right is golden.test.ts's and oracle.test.ts's
// matter.

import { mkdtempSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { createDevice, type Device, findCompiler, ReferenceDevice } from "@open-infra/jit";
import { maxAbsDiff, requirement, rmsDiff } from "@open-infra/testing";
import { afterAll, beforeAll, describe, expect, it } from "vitest";
import {
  type ComputeDType,
  loadModel,
  modelPresets,
  scoreTokens,
  writeRandomModel,
} from "../src/index.ts";

const missing = findCompiler() === undefined ? "no C compiler; install gcc or clang" : true;
const base = modelPresets.tiny?.config ?? {};
const small = { ...base, vocab_size: 300, num_hidden_layers: 2, max_position_embeddings: 512 };
const odd = {
  ...small,
  hidden_size: 136,
  intermediate_size: 200,
  moe_intermediate_size: 130,
  num_attention_heads: 3,
  num_key_value_heads: 3,
  kv_lora_rank: 37,
  q_lora_rank: 51,
  qk_nope_head_dim: 19,
  qk_rope_head_dim: 6,
  v_head_dim: 23,
  n_routed_experts: 9,
  n_group: 3,
  topk_group: 2,
  num_experts_per_tok: 3,
};

const architectures: [string, object][] = [
  ["sizes that nothing divides", odd],
  [
    "no shared experts, every other layer MoE",
    { ...small, n_shared_experts: null, moe_layer_freq: 2, first_k_dense_replace: 0 },
  ],
  ["all dense, uncompressed queries", { ...odd, n_routed_experts: null, q_lora_rank: null }],
  ["all MoE, three shared experts", { ...odd, first_k_dense_replace: 0, n_shared_experts: 3 }],
  [
    "halved rotary pairs, linear scaling",
    { ...small, rope_interleave: false, rope_scaling: { type: "linear", factor: 4 } },
  ],
  [
    "one head, one expert a token",
    { ...odd, num_attention_heads: 1, num_key_value_heads: 1, num_experts_per_tok: 1 },
  ],
  [
    "V2 with groups that are normalised",
    {
      ...odd,
      model_type: "deepseek_v2",
      topk_method: "group_limited_greedy",
      scoring_func: "softmax",
      norm_topk_prob: true,
    },
  ],
];

describe.skipIf(requirement("architectures on the cpu device", missing))("architectures", () => {
  const scratch = mkdtempSync(join(tmpdir(), "open-infra-architectures-"));
  const prompt = Array.from({ length: 9 }, (_, i) => (i * 71) % 300);
  const reference = new ReferenceDevice();
  let device: Device;
  beforeAll(() => {
    device = createDevice({ backend: "cpu", threads: 2 });
  });
  afterAll(() => {
    device[Symbol.dispose]();
    rmSync(scratch, { recursive: true, force: true });
  });

  it.each(architectures)("%s", async (name, config) => {
    for (const stored of ["bf16", "fp8"] as const) {
      const dir = join(scratch, `${name} ${stored}`);
      await writeRandomModel({ config: { ...config }, seed: 5, dir, dtype: stored });
      const logits = async (on: Device, dtype: ComputeDType) => {
        using model = await loadModel(dir, { device: on, dtype, fp8Inputs: "all" });
        return scoreTokens(model, prompt).last_logits;
      };
      const exact = await logits(reference, "f32");
      expect(maxAbsDiff(await logits(device, "f32"), exact), stored).toBeLessThan(2e-5);
      // With rounding in between, a last bit here and there falls to the other side.
      const dtype = stored === "fp8" ? "w8a8" : "bf16";
      const rounded = await logits(reference, dtype);
      const std = rmsDiff(exact, new Float64Array(exact.length));
      expect(rmsDiff(await logits(device, dtype), rounded) / std, dtype).toBeLessThan(0.1);
    }
  });
});
