// Instruction sets by name, and the compiler flags that make them. Flags are spelt out one by one,
// not as -march levels, which older compilers lack.

/**
 * What a kernel may ask for, best first. `amx` is `avx512bf16` with matrix tiles; `neon` is the
 * floor of arm64, `scalar` of everything.
 */
export const isaNames = ["amx", "avx512bf16", "avx512", "avx2", "neon", "scalar"] as const;

export type IsaName = (typeof isaNames)[number];

/**
 * A bit of `isa_probe.c` for each feature; the order is the bits'. `amxRefused` is of a processor
 * that has tiles under a system that does not grant them.
 */
export const cpuFeatures = [
  "avx2",
  "avx512",
  "avx512bf16",
  "avx512vbmi",
  "avx512vnni",
  "neon",
  "amx",
  "amxRefused",
] as const;

export type CpuFeature = (typeof cpuFeatures)[number];

/** An instruction set as kernels are compiled for it. */
export interface IsaTarget {
  readonly isa: IsaName;
  /** Compiler flags, macros included; part of every kernel's cache key. */
  readonly flags: readonly string[];
  /** What logs say beside its name. */
  readonly note?: string;
}

const avx2 = ["-mavx2", "-mfma", "-mf16c", "-mbmi", "-mbmi2", "-mlzcnt", "-mmovbe", "-mpopcnt"];
const avx512 = [...avx2, "-mavx512f", "-mavx512bw", "-mavx512cd", "-mavx512dq", "-mavx512vl"];

/** Flags each instruction set needs. */
export const requiredFlags: Readonly<Record<IsaName, readonly string[]>> = {
  amx: [...avx512, "-mavx512bf16", "-mamx-tile", "-mamx-bf16", "-mamx-int8"],
  avx512bf16: [...avx512, "-mavx512bf16"],
  avx512,
  avx2,
  neon: [],
  scalar: [],
};

/** What the processor must have for each. */
export const requiredFeatures: Readonly<Record<IsaName, readonly CpuFeature[]>> = {
  amx: ["avx512", "avx512bf16", "amx"],
  avx512bf16: ["avx512", "avx512bf16"],
  avx512: ["avx512"],
  avx2: ["avx2"],
  neon: ["neon"],
  scalar: [],
};

const vectorExtras: readonly [CpuFeature, string][] = [
  ["avx512vbmi", "-mavx512vbmi"],
  ["avx512vnni", "-mavx512vnni"],
];

/**
 * Flags added where both the processor and the compiler have the feature; kernels see them as
 * `__AVX512VBMI__` and `__AVX512VNNI__`.
 */
export const optionalFlags: Readonly<Partial<Record<IsaName, readonly [CpuFeature, string][]>>> = {
  amx: vectorExtras,
  avx512bf16: vectorExtras,
  avx512: vectorExtras,
};

/** Every flag that any instruction set of an architecture may want. */
export function allIsaFlags(arch: string): readonly string[] {
  return arch === "x64" ? [...requiredFlags.amx, ...vectorExtras.map(([, flag]) => flag)] : [];
}
