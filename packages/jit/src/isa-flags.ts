// Instruction sets by name, and the compiler flags that make them. Flags are spelt out one by one,
// not as -march levels, which older compilers lack.

/** What a kernel may ask for, best first. `neon` is the floor of arm64, `scalar` of everything. */
export const isaNames = ["avx512bf16", "avx512", "avx2", "neon", "scalar"] as const;

export type IsaName = (typeof isaNames)[number];

/** A bit of `isa_probe.c` for each feature; the order is the bits'. */
export const cpuFeatures = [
  "avx2",
  "avx512",
  "avx512bf16",
  "avx512vbmi",
  "avx512vnni",
  "neon",
] as const;

export type CpuFeature = (typeof cpuFeatures)[number];

/** An instruction set as kernels are compiled for it. */
export interface IsaTarget {
  readonly isa: IsaName;
  /** Compiler flags, macros included; part of every kernel's cache key. */
  readonly flags: readonly string[];
}

const avx2 = ["-mavx2", "-mfma", "-mf16c", "-mbmi", "-mbmi2", "-mlzcnt", "-mmovbe", "-mpopcnt"];
const avx512 = [...avx2, "-mavx512f", "-mavx512bw", "-mavx512cd", "-mavx512dq", "-mavx512vl"];

/** Flags each instruction set needs. */
export const requiredFlags: Readonly<Record<IsaName, readonly string[]>> = {
  avx512bf16: [...avx512, "-mavx512bf16"],
  avx512,
  avx2,
  neon: [],
  scalar: [],
};

/**
 * Flags added where both the processor and the compiler have the feature; kernels see them as
 * `__AVX512VBMI__` and `__AVX512VNNI__`.
 */
export const optionalFlags: Readonly<Partial<Record<IsaName, readonly [CpuFeature, string][]>>> = {
  avx512bf16: [
    ["avx512vbmi", "-mavx512vbmi"],
    ["avx512vnni", "-mavx512vnni"],
  ],
  avx512: [
    ["avx512vbmi", "-mavx512vbmi"],
    ["avx512vnni", "-mavx512vnni"],
  ],
};

/** Every flag that any instruction set of an architecture may want. */
export function allIsaFlags(arch: string): readonly string[] {
  return arch === "x64" ? [...requiredFlags.avx512bf16, "-mavx512vbmi", "-mavx512vnni"] : [];
}
