// The rules that come with the analyser: kernels of DeepEP, DeepGEMM, FlashMLA, FlashAttention,
// NCCL, cuBLAS, PyTorch and Triton, and the spans of this project's own runtimes. Order matters: a
// cast fused with a SwiGLU counts as a cast, a top-k of PyTorch as routing. Names were taken from
// public sources and traces.

import type { KernelGroup, KernelRule } from "./classify.ts";

type RuleRow = readonly [match: RegExp, className: string, variant?: string];

function rulesOf(group: KernelGroup, family: string, rows: readonly RuleRow[]): KernelRule[] {
  return rows.map(([match, name, variant]) => ({
    match,
    class: name,
    group,
    family,
    ...(variant !== undefined && { variant }),
  }));
}

/** Copies and fills by the driver: known by category, or by the profiler's own names. */
const memory: readonly KernelRule[] = [
  { match: "", category: /^gpu_memcpy$/i, class: "memcpy", group: "memory", family: "driver" },
  { match: "", category: /^gpu_memset$/i, class: "memset", group: "memory", family: "driver" },
  ...rulesOf("memory", "driver", [
    [/^Memcpy |^CopyDevice|^hipMemcpy/, "memcpy"],
    [/^Memset |^hipMemset/, "memset"],
  ]),
];

/**
 * DeepEP: today's `deep_ep`, the `dpsk::ep` of the published traces. The third template argument of
 * the internode dispatch says whether it reuses a handle.
 */
const deepEp = rulesOf("communication", "DeepEP", [
  [/(?:deep_?ep|dpsk::ep)(?![a-z]).*layout/i, "ep_layout"],
  [/(?:deep_?ep|dpsk::ep)(?![a-z]).*cached_notify/i, "ep_notify", "cached"],
  [/(?:deep_?ep|dpsk::ep)(?![a-z]).*notify/i, "ep_notify"],
  [
    /(?:deep_?ep|dpsk::ep)(?![a-z]).*(?:_ll::dispatch|dispatch_ll|low_latency_dispatch)/i,
    ...ll("dispatch"),
  ],
  [
    /(?:deep_?ep|dpsk::ep)(?![a-z]).*(?:_ll::combine|combine_ll|low_latency_combine)/i,
    ...ll("combine"),
  ],
  [
    /(?:deep_?ep|dpsk::ep)(?![a-z]).*dispatch\w*<[^,<>]*,[^,<>]*,\s*true\b/i,
    "ep_dispatch",
    "cached",
  ],
  [/(?:deep_?ep|dpsk::ep)(?![a-z]).*::\w*dispatch/i, "ep_dispatch"],
  [/(?:deep_?ep|dpsk::ep)(?![a-z]).*::\w*combine/i, "ep_combine"],
  [/(?:deep_?ep|dpsk::ep)(?![a-z])/i, "ep_other"],
  [/^(?:ep[.: _])?(?:low_latency_dispatch|dispatch_ll)\b/i, ...ll("dispatch")],
  [/^(?:ep[.: _])?(?:low_latency_combine|combine_ll)\b/i, ...ll("combine")],
  [/^(?:ep[.: _])?(?:internode[.:_]+|intranode[.:_]+)?dispatch(?![a-z])/i, "ep_dispatch"],
  [/^(?:ep[.: _])?(?:internode[.:_]+|intranode[.:_]+)?combine(?![a-z])/i, "ep_combine"],
  [/^(?:cached_)?notify_(?:dispatch|combine)\b/i, "ep_notify"],
]);

function ll(side: "dispatch" | "combine"): readonly [string, string] {
  return [`ep_${side}`, "low-latency"];
}

/** The collective libraries: NVIDIA's, AMD's and what replaces them; one variant a collective. */
const collectives = rulesOf("communication", "NCCL", [
  [/^(?:void )?(?:nccl|rccl|msccl)\w*.*all_?reduce/i, "nccl", "all-reduce"],
  [/^(?:void )?(?:nccl|rccl|msccl)\w*.*all_?gather/i, "nccl", "all-gather"],
  [/^(?:void )?(?:nccl|rccl|msccl)\w*.*reduce_?scatter/i, "nccl", "reduce-scatter"],
  [/^(?:void )?(?:nccl|rccl|msccl)\w*.*all_?to_?all/i, "nccl", "all-to-all"],
  [/^(?:void )?(?:nccl|rccl|msccl)\w*.*send_?recv/i, "nccl", "send-receive"],
  [/^(?:void )?(?:nccl|rccl|msccl)\w*.*(?:broadcast|bcast)/i, "nccl", "broadcast"],
  [/^(?:void )?(?:nccl(?!::)|rccl|msccl)\w*|ncclDevKernel|ncclKernel|^hccl/i, "nccl"],
  [/nvshmem|rocshmem|symm_?mem\w*(?:one|two)_shot|cross_device_reduce/i, "nvshmem"],
]);

const attention: readonly KernelRule[] = [
  ...rulesOf("computation", "FlashMLA", [
    [/flash_?mla.*(?:bwd|backward)/i, "attention_backward", "mla"],
    [/flash_?mla|splitkv_mla|mla_combine|get_mla_metadata|^mla[_.]/i, "attention_forward", "mla"],
  ]),
  ...rulesOf("computation", "FlashAttention", [
    [
      /Flash_?Attn_?Bwd|flash_bwd|fmha\w*_(?:bwd|backward)|attention_backward/i,
      "attention_backward",
    ],
    [
      /flash::|flash_fwd|Flash_?Attn|fmha|compute_attn|^attention\b|flashinfer/i,
      "attention_forward",
    ],
  ]),
];

/** DeepGEMM: today's `deep_gemm`, the `dpsk::grouped_gemm` of the published traces. */
const deepGemm = rulesOf("computation", "DeepGEMM", [
  [/dpsk::grouped_gemm\S*::(?:utils::|fill_)/, "gemm_setup"],
  [/dpsk::grouped_gemm.*::m_grouped\w*/, "gemm_fp8", "m-grouped"],
  [/dpsk::grouped_gemm.*_acc::/, "gemm_fp8", "accumulating"],
  [/dpsk::grouped_gemm/, "gemm_fp8", "dense"],
  [/(?:deep_gemm|fp8_gemm|fp8_m_grouped|gemm_fp8).*grouped|m_grouped_gemm_fp8/i, ...grouped()],
  [/deep_gemm::\w*bf16\w*gemm|bf16_(?:m_grouped_)?gemm/i, "gemm_bf16"],
  // Compiled enums are numbers: 1 and 2 are the grouped forms along M, 3 the one along K.
  [/deep_gemm.*GemmType\)[12]/, ...grouped()],
  [/deep_gemm.*GemmType\)3/, "gemm_fp8", "k-grouped"],
  [/deep_gemm|fp8_gemm|gemm_fp8/i, "gemm_fp8", "dense"],
]);

function grouped(): readonly [string, string] {
  return ["gemm_fp8", "m-grouped"];
}

/** Changes of layout around GEMMs, whosever they are; before the GEMMs, whose names they carry. */
const transposes = rulesOf("computation", "layers", [
  [/dpsk::grouped_gemm\S*::utils::transpose|batched_transpose|transpose_kernel/i, "transpose"],
  [/deep_gemm.*(?:transpose|pack|sf_layout)/i, "transpose"],
]);

const layers: readonly KernelRule[] = [
  ...rulesOf("computation", "quantisation", [
    [/swiglu.*(?:cast_and|cast_to|quant)/i, "quant_cast", "fused swiglu"],
    [
      /per_(?:token|channel|block|tensor)\w*_(?:cast|quant)|cast_?back|cast_?to_?fp8/i,
      "quant_cast",
    ],
    [/(?:^|[\s:_])(?:de)?quant(?:ize|ise)?|scaled_fp8_quant|cast_and_transpose/i, "quant_cast"],
  ]),
  ...rulesOf("computation", "permutation", [
    [/expand_to_fused|reduce_fused|get_fused_mapping|clean_and_count_expert/, "permute"],
    [
      /moe_(?:un)?permute|(?:un)?permute_(?:kernel|tokens)|moe_align_block|^gather_rows/i,
      "permute",
    ],
  ]),
  ...rulesOf("computation", "layers", [
    [/(?:layer|rms|group|batch)_?norm|\bln_(?:fwd|bwd)|layer_norm::/i, "norm"],
    [/swiglu|silu|gelu|geglu|act_and_mul/i, "swiglu"],
    [/rotary|\brope|_rope|apply_rope/i, "rope"],
    [/top_?k|aux_fi|unique_group|router|routing|moe_gate|softmax_topk/i, "router"],
    [/^embed(?:ding)?\b/i, "embedding"],
  ]),
];

const libraries: readonly KernelRule[] = [
  ...rulesOf("computation", "cuBLAS", [
    [/_xmma_gemm|cublas|cutlass_\d+_\w*gemm|^ampere_\w*gemm|nvjet|gemv|splitK|Cijk_/i, "cublas"],
  ]),
  ...rulesOf("computation", "PyTorch", [
    [/at::native|at6native|at::cuda|_copy_tensor_kernel|^aten::/, "aten"],
    [/cub::|thrust::/, "cub"],
  ]),
  ...rulesOf("computation", "cuDNN", [[/cudnn/i, "cudnn"]]),
  ...rulesOf("computation", "CUTLASS", [[/cutlass|gemm/i, "gemm_other"]]),
  ...rulesOf("computation", "Triton", [[/^triton_|^_\w+_kernel$|_kernel_0d1d/, "triton"]]),
];

/** This project's own spans: DualPipe's steps and transfers, the engine's steps. */
const runtimes: readonly KernelRule[] = [
  ...rulesOf("communication", "DualPipe", [
    [/^wait\s*(?:F|B)\b/, "pipeline_wait"],
    [/^(?:send|recv|receive|transfer|>|<)\s*(?:F|B|forward|backward|\d|$)/i, "pipeline_transfer"],
  ]),
  ...rulesOf("computation", "DualPipe", [
    [/^F\d*(?:\s*[|‖&+/]\s*|(?=B\d*$))B\d*\b|^overlappedForwardBackward/i, "pipeline_overlapped"],
    [/^(?:F\d*|F[ .:]\S.*|forward ?\d*)$/, "pipeline_forward"],
    [/^(?:B\d*|B[ .:]\S.*|backward ?\d*)$/, "pipeline_backward"],
    [/^(?:I\d*|I[ .:]\S.*|backward_?input ?\d*)$/i, "pipeline_backward_input"],
    [/^(?:W\d*|W[ .:]\S.*|backward_?weight ?\d*)$/i, "pipeline_backward_weight"],
  ]),
  ...rulesOf("computation", "engine", [[/^(?:step|schedule|sample)$|^engine\./, "engine"]]),
];

/** All rules that come with the analyser, in order. Put yours before them. */
export const builtinRules: readonly KernelRule[] = [
  ...memory,
  ...deepEp,
  ...collectives,
  ...attention,
  ...transposes,
  ...deepGemm,
  ...layers,
  ...libraries,
  ...runtimes,
];
