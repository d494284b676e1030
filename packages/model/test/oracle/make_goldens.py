"""Random small checkpoints with logits from an independent implementation (transformers, float32).

Usage: python make_goldens.py OUT_DIR [COUNT] [SEED]   needs torch, transformers, safetensors
Then:  OPEN_INFRA_ORACLE_DIR=OUT_DIR vitest run packages/model/test/oracle.test.ts

Where transformers differs from DeepSeek's own modeling code, the latter rules: V2's gate divides by
the sum of the chosen scores when norm_topk_prob is set, and scales only when it does not.
"""
import json
import os
import random
import sys

import torch
import torch.nn.functional as F
from safetensors.torch import save_file
from transformers import DeepseekV2Config, DeepseekV2ForCausalLM, DeepseekV3Config, DeepseekV3ForCausalLM
from transformers.models.deepseek_v2 import modeling_deepseek_v2 as v2


def original_v2_gate(self, hidden_states):
    """MoEGate of the hub's modeling_deepseek.py for V2."""
    x = hidden_states.view(-1, self.hidden_dim)
    logits = F.linear(x.float(), self.weight.float())
    scores = logits.softmax(-1)
    choice = scores
    if self.topk_method == "group_limited_greedy":
        per_group = scores.view(len(x), self.num_group, -1)
        best = per_group.max(-1).values.topk(self.topk_group, -1).indices
        mask = torch.zeros(len(x), self.num_group, dtype=torch.bool).scatter_(1, best, True)
        choice = per_group.masked_fill(~mask[..., None], 0.0).reshape(len(x), -1)
    weights, ids = choice.topk(self.top_k, -1)
    if self.top_k > 1 and self.norm_topk_prob:
        weights = weights / (weights.sum(-1, keepdim=True) + 1e-20)
    else:
        weights = weights * self.routed_scaling_factor
    return logits, weights, ids


def random_config(rng, v3):
    groups = rng.choice([1, 2, 4])
    per_group = rng.choice([2, 3, 5])
    experts = groups * per_group
    groups_per_token = rng.randint(1, groups)
    heads = rng.choice([1, 2, 3, 5])
    layers = rng.randint(2, 4)
    config = {
        "architectures": ["DeepseekV3ForCausalLM" if v3 else "DeepseekV2ForCausalLM"],
        "model_type": "deepseek_v3" if v3 else "deepseek_v2",
        "attention_bias": False,
        "hidden_act": "silu",
        "rms_norm_eps": rng.choice([1e-6, 1e-5]),
        "rope_theta": rng.choice([10000, 50000.0]),
        "tie_word_embeddings": rng.random() < 0.3,
        "moe_layer_freq": 1,
        "vocab_size": rng.choice([97, 160, 300]),
        "hidden_size": heads * rng.choice([24, 40, 72]),
        "intermediate_size": rng.choice([88, 160, 200]),
        "moe_intermediate_size": rng.choice([24, 56, 144]),
        "num_hidden_layers": layers,
        "num_attention_heads": heads,
        "num_key_value_heads": heads,
        "n_shared_experts": rng.choice([1, 2, 3]),
        "n_routed_experts": experts,
        "kv_lora_rank": rng.choice([16, 40, 136]),
        "q_lora_rank": rng.choice([None, 24, 72]),
        "qk_rope_head_dim": rng.choice([4, 8, 24]),
        "v_head_dim": rng.choice([8, 20, 48]),
        "qk_nope_head_dim": rng.choice([8, 28, 40]),
        "num_experts_per_tok": rng.randint(1, min(4, groups_per_token * per_group)),
        "first_k_dense_replace": rng.choice([0, 1, layers]),
        "max_position_embeddings": 4096,
        "bos_token_id": 0,
        "eos_token_id": 1,
        "n_group": groups,
        "topk_group": groups_per_token,
        "topk_method": "noaux_tc" if v3 else rng.choice(["greedy", "group_limited_greedy"]),
        "scoring_func": "sigmoid" if v3 else "softmax",
        "routed_scaling_factor": rng.choice([1.0, 2.5, 16.0]),
        "norm_topk_prob": rng.random() < 0.5,
    }
    config["rope_scaling"] = None
    if rng.random() < 0.6:
        config["rope_scaling"] = {
            "type": "yarn",
            "factor": rng.choice([4, 40]),
            "beta_fast": 32,
            "beta_slow": 1,
            "mscale": rng.choice([0.707, 1.0]),
            "mscale_all_dim": rng.choice([0.5, 0.707, 1.0]),
            "original_max_position_embeddings": rng.choice([32, 1024]),
        }
    return config


def build(config):
    v3 = config["model_type"] == "deepseek_v3"
    own = {k: v for k, v in config.items() if k not in ("architectures", "model_type", "rope_scaling", "rope_theta", "scoring_func", "moe_layer_freq")}
    rope = {"rope_theta": config["rope_theta"], "rope_type": "default"}
    if config["rope_scaling"]:
        rope.update({k: v for k, v in config["rope_scaling"].items() if k != "type"}, rope_type="yarn")
    own["rope_parameters"] = rope
    hf = (DeepseekV3Config if v3 else DeepseekV2Config)(**own)
    hf._attn_implementation = "eager"
    model = (DeepseekV3ForCausalLM if v3 else DeepseekV2ForCausalLM)(hf).float().eval()
    for module in model.modules():
        if isinstance(module, v2.DeepseekV2TopkRouter):
            module.norm_topk_prob = config["norm_topk_prob"]
            module.forward = original_v2_gate.__get__(module)
    return model


def initialise(model, generator):
    for name, p in list(model.named_parameters()) + list(model.named_buffers()):
        if "inv_freq" in name:
            continue
        if p.ndim == 1:
            scale = 0.05 if "bias" in name else 0.2
            p.data = torch.randn(p.shape, generator=generator) * scale + (0 if "bias" in name else 1)
        else:
            p.data = torch.randn(p.shape, generator=generator) / p.shape[-1] ** 0.5
        p.data = p.data.to(torch.bfloat16).float()


def quantise(weight):
    """e4m3 with one scale per 128×128 block; returns what is stored and what it stands for."""
    n, k = weight.shape
    scales = torch.empty(-(-n // 128), -(-k // 128))
    stored = torch.empty(n, k, dtype=torch.float8_e4m3fn)
    for i in range(scales.shape[0]):
        for j in range(scales.shape[1]):
            block = weight[i * 128 : i * 128 + 128, j * 128 : j * 128 + 128]
            scales[i, j] = block.abs().max().clamp(min=1e-4) / 448
            stored[i * 128 : i * 128 + 128, j * 128 : j * 128 + 128] = (block / scales[i, j]).to(torch.float8_e4m3fn)
    wide = scales.repeat_interleave(128, 0)[:n].repeat_interleave(128, 1)[:, :k]
    return stored, scales, stored.float() * wide


def linear_slices(model, config):
    """(hub name, view of the parameter) of every weight, experts one by one."""
    width = config["moe_intermediate_size"]
    for name, p in list(model.named_parameters()) + list(model.named_buffers()):
        if "inv_freq" in name or (name == "lm_head.weight" and config["tie_word_embeddings"]):
            continue
        if name.endswith("experts.gate_up_proj"):
            for e in range(p.shape[0]):
                yield name.replace("gate_up_proj", f"{e}.gate_proj.weight"), p.data[e, :width]
                yield name.replace("gate_up_proj", f"{e}.up_proj.weight"), p.data[e, width:]
        elif name.endswith("experts.down_proj"):
            for e in range(p.shape[0]):
                yield name.replace("down_proj", f"{e}.down_proj.weight"), p.data[e]
        else:
            yield name, p.data


def store(model, config, path, dtype):
    tensors = {}
    for name, view in linear_slices(model, config):
        plain = not name.endswith("_proj.weight") and not name.endswith("_with_mqa.weight")
        if dtype == "fp8" and not plain:
            stored, scales, value = quantise(view)
            view.copy_(value)
            tensors[name], tensors[name + "_scale_inv"] = stored, scales
        elif name.endswith("correction_bias"):
            tensors[name] = view.clone()
        else:
            kind = {"bf16": torch.bfloat16, "fp8": torch.bfloat16, "f16": torch.float16, "f32": torch.float32}[dtype]
            tensors[name] = view.to(kind)
            view.copy_(tensors[name].float())
    save_file({k: v.contiguous() for k, v in tensors.items()}, path)


def main():
    out, count, seed = sys.argv[1], int(sys.argv[2]) if len(sys.argv) > 2 else 16, int(sys.argv[3]) if len(sys.argv) > 3 else 1
    for case in range(count):
        rng = random.Random(seed * 1000 + case)
        generator = torch.Generator().manual_seed(seed * 1000 + case)
        config = random_config(rng, v3=case % 2 == 0)
        dtype = ["bf16", "fp8", "f32", "fp8", "f16"][case % 5]
        model = build(config)
        initialise(model, generator)
        folder = os.path.join(out, f"case-{case:03d}-{dtype}")
        os.makedirs(folder, exist_ok=True)
        store(model, config, os.path.join(folder, "model.safetensors"), dtype)
        if dtype == "fp8":
            config["quantization_config"] = {"activation_scheme": "dynamic", "fmt": "e4m3", "quant_method": "fp8", "weight_block_size": [128, 128]}
        if case % 3 == 2:  # The keys that newer transformers versions write.
            rope = model.config.to_dict()["rope_parameters"]
            del config["rope_scaling"], config["rope_theta"]
            config |= {"rope_parameters": rope, "dtype": "bfloat16", "head_dim": config["qk_rope_head_dim"], "rope_interleave": True}
        json.dump(config, open(os.path.join(folder, "config.json"), "w"), indent=1)
        cases = []
        for length in (1, 7, 150):
            ids = torch.randint(0, config["vocab_size"], (length,), generator=generator)
            with torch.no_grad():
                logits = model(ids[None]).logits[0].float()
            logprobs = logits.log_softmax(-1)[:-1].gather(1, ids[1:, None])[:, 0]
            cases.append({"prompt": ids.tolist(), "last_logits": logits[-1].tolist(), "token_logprobs": logprobs.tolist(), "logit_std": logits[-1].std().item()})
        json.dump({"cases": cases}, open(os.path.join(folder, "golden.json"), "w"))
        print(folder, "std", round(cases[-1]["logit_std"], 3))


main()
