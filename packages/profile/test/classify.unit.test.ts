// Names as public sources and traces have them, and the classes they fall into.

import {
  builtinRules,
  createClassifier,
  parseRules,
  shortName,
  unclassified,
} from "@open-infra/profile/analyze";
import { describe, expect, it } from "vitest";

const classifier = createClassifier(builtinRules);

/** `group class variant` of a name. */
function classify(name: string, category = "kernel"): string {
  const {
    group,
    name: className,
    variant,
  } = classifier.classes[classifier.classOf(name, category)] as (typeof classifier.classes)[number];
  return [group, className, variant].join(" ").trim();
}

describe("built-in rules", () => {
  it.each([
    // DeepEP, of the published traces and of today.
    ["void dpsk::ep::internode::dispatch<false, 8, true, 8>(int4*)", "ep_dispatch cached"],
    ["void dpsk::ep::internode::dispatch<false, 8, false, 8>(int4*)", "ep_dispatch"],
    ["void dpsk::ep::internode::combine<false, 8, __nv_bfloat16, 8>(int4*)", "ep_combine"],
    ["void dpsk::ep::internode::notify_dispatch<false, 8>(int const*)", "ep_notify"],
    ["void dpsk::ep::internode::cached_notify<false>(int, int)", "ep_notify cached"],
    ["void dpsk::ep::cuda::get_dispatch_layout<256, 32, 8>(long const*)", "ep_layout"],
    ["void deep_ep::layout::get_dispatch_layout<256, 32, 8>(long const*)", "ep_layout"],
    ["void deep_ep::intranode::dispatch<8, 768, 8192>(int4*)", "ep_dispatch"],
    ["void deep_ep::intranode::cached_notify_combine<8>(void**)", "ep_notify cached"],
    ["void deep_ep::internode_ll::dispatch<true, 7168>(void*)", "ep_dispatch low-latency"],
    ["void dpsk::ep::internode::combine_ll<7168>(void*)", "ep_combine low-latency"],
    ["void deep_ep::intranode::barrier<8>(int**, int)", "ep_other"],
    ["deep_ep_v2_dispatch_kernel", "ep_other"],
    ["dispatch", "ep_dispatch"],
    ["ep:combine", "ep_combine"],
    ["low_latency_dispatch send", "ep_dispatch low-latency"],
    // Collectives.
    [
      "ncclDevKernel_AllReduce_Sum_bf16_RING_LL(ncclDevKernelArgsStorage<4096ul>)",
      "nccl all-reduce",
    ],
    ["ncclKernel_ReduceScatter_RING_LL_Sum_float", "nccl reduce-scatter"],
    ["ncclDevKernel_SendRecv(ncclDevKernelArgsStorage<4096ul>)", "nccl send-receive"],
    ["ncclDevKernel_Generic", "nccl"],
    ["nvshmemi_transfer_allgather", "nvshmem"],
    // Pipelines of our own.
    ["send F3", "pipeline_transfer"],
    ["recv B1", "pipeline_transfer"],
  ])("communication: %s", (name, wanted) => {
    expect(classify(name)).toBe(`communication ${wanted}`);
  });

  it.each([
    [
      "void cutlass::device_kernel<dpsk::grouped_gemm::cuda::m_grouped_fp8_ptp128c::GemmKernel>(P)",
      "gemm_fp8 m-grouped",
    ],
    [
      "void cutlass::device_kernel<dpsk::grouped_gemm::cuda::fp8_dptp128c_acc::GemmKernel>(P)",
      "gemm_fp8 accumulating",
    ],
    [
      "void cutlass::device_kernel<dpsk::grouped_gemm::cuda::fp8_ptp128c::GemmKernel>(P)",
      "gemm_fp8 dense",
    ],
    ["void deep_gemm::sm90_fp8_gemm_1d2d_impl<0u, 7168u>(float*)", "gemm_fp8 dense"],
    ["void deep_gemm::fp8_gemm_kernel<4096u, (deep_gemm::GemmType)1>(bf16*)", "gemm_fp8 m-grouped"],
    ["void deep_gemm::sm100_bf16_gemm_impl<7168u>()", "gemm_bf16"],
    ["void deep_gemm::transpose_and_pack_fp32_into_ue8m0<512>()", "transpose"],
    [
      "void dpsk::grouped_gemm::cuda::utils::transpose<512, 128, 4, 4>(unsigned char const*)",
      "transpose",
    ],
    ["void flash::compute_attn_ws<Flash_fwd_kernel_traits<192, 128>>(int)", "attention_forward"],
    [
      "void cutlass::device_kernel<flash::FlashAttnBwd<flash::CollectiveMainloopBwd<2>>>(int)",
      "attention_backward",
    ],
    [
      "void flash_fwd_splitkv_mla_kernel<Flash_fwd_kernel_traits_mla<576>>(int)",
      "attention_forward mla",
    ],
    ["void flash_fwd_mla_combine_kernel<float>(int)", "attention_forward mla"],
    ["fmha_cutlassF_bf16_aligned_64x128_rf_sm80", "attention_forward"],
    ["void cuda::per_token_cast_to_fp8_with_channels<__nv_bfloat16, 128>(int)", "quant_cast"],
    ["void cuda::swiglu_and_per_channel_cast_and_transpose<256>(int)", "quant_cast fused swiglu"],
    ["void cuda::swiglu_backward<__nv_bfloat16>(void const*)", "swiglu"],
    ["cuda::expand_to_fused_with_scales_impl(int4 const*)", "permute"],
    ["void layer_norm::ln_bwd_finalize_kernel<int>(int)", "norm"],
    ["rotary_kernel", "rope"],
    ["void at::native::sbtopk::gatherTopK<float, unsigned int, 2, false>(int)", "router"],
    [
      "void at::native::vectorized_elementwise_kernel<4, at::native::FillFunctor<float> >(int)",
      "aten",
    ],
    ["sm90_xmma_gemm_bf16f32_bf16f32_f32_tn_n_tilesize128x128x64", "cublas"],
    ["nvjet_hsh_128x256_64x4_1x2_h_bz_coopA_NTT", "cublas"],
    ["triton_poi_fused_add_0", "triton"],
    ["F4|B0", "pipeline_overlapped"],
    ["F4", "pipeline_forward"],
    ["W8", "pipeline_backward_weight"],
    ["castToFp8", "quant_cast"],
    ["no rule knows this", "unclassified"],
  ])("computation: %s", (name, wanted) => {
    expect(classify(name)).toBe(`computation ${wanted}`);
  });

  it("know memory by category and by name", () => {
    expect(classify("anything", "gpu_memcpy")).toBe("memory memcpy");
    expect(classify("Memset (Device)", "kernel")).toBe("memory memset");
    expect(classify("Memcpy DtoD (Device -> Device)", "")).toBe("memory memcpy");
  });
});

describe("a user's rules", () => {
  const rules = parseRules([
    { match: "^my_a2a", class: "a2a", group: "communication", family: "mine" },
    { match: "FP8_GEMM", flags: "i", class: "special", group: "other" },
    { match: ".", category: "^spin$", class: "spin", group: "other" },
  ]);
  const mine = createClassifier([...rules, ...builtinRules]);
  const nameOf = (name: string, category = "kernel") =>
    mine.classes[mine.classOf(name, category)]?.name;

  it("come first, in their order", () => {
    expect(nameOf("my_a2a_kernel")).toBe("a2a");
    expect(nameOf("deep_gemm::fp8_gemm")).toBe("special");
    expect(nameOf("deep_gemm::fp8_gemm", "spin")).toBe("special");
    expect(nameOf("rotary_kernel", "spin")).toBe("spin");
    expect(nameOf("rotary_kernel")).toBe("rope");
  });

  it("may be functions and substrings in code", () => {
    const byCode = createClassifier([
      { match: "abc", class: "text", group: "other", family: "mine" },
      { match: (name) => name.length > 5, class: "long", group: "other", family: "mine" },
    ]);
    const named = (name: string) => byCode.classes[byCode.classOf(name, "")];
    expect(named("xabcx")?.name).toBe("text");
    expect(named("abdefg")?.name).toBe("long");
    expect(named("x")).toBe(unclassified);
  });

  it.each([
    [{}, "rules is object; expected an array"],
    [[7], "rules[0] is 7"],
    [[{ match: "(", class: "a", group: "other" }], "rules[0].match"],
    [[{ match: "a", class: "a", group: "network" }], 'rules[0].group is "network"'],
    [[{ match: "a", class: "", group: "other" }], "rules[0].class"],
    [[{ match: "a", group: "other" }], "rules[0].class is missing"],
    [[{ match: "a", class: "a", group: "other", flags: "g" }], "rules[0].flags is g"],
    [[{ match: "a", class: "a", group: "other", klass: "b" }], "rules[0].klass is unknown"],
  ])("that cannot be used are named: %j", (rules, message) => {
    expect(() => parseRules(rules)).toThrow(message);
  });

  it("with a global expression are refused: every second answer would differ", () => {
    const rule = { match: /a/g, class: "a", group: "other", family: "mine" } as const;
    expect(() => createClassifier([rule])).toThrow("rules[0].match is /a/g");
  });
});

describe("short names", () => {
  it.each([
    ["void deep_ep::internode::dispatch<false, 8>(int4*, float*)", "internode::dispatch"],
    ["void cutlass::device_kernel<a::b::GemmKernel<c::D> >(a::Params)", "b::GemmKernel"],
    ["void (anonymous namespace)::softmax_warp<float>(int)", "softmax_warp"],
    [
      "void at::native::elementwise_kernel<128, 2, at::native::gpu_kernel_impl<" +
        "at::native::BinaryFunctor<float, float, at::native::MulFunctor<float> > >(int)>(int)",
      "elementwise_kernel MulFunctor",
    ],
    ["ncclDevKernel_Generic", "ncclDevKernel_Generic"],
    ["(odd", "(odd"],
  ])("%s", (name, wanted) => {
    expect(shortName(name)).toBe(wanted);
  });
});
