// Chooses the instruction set: what the processor has (asked by a compiled probe, so that it is the
// same on every system), the compiler knows, and the user allows.

import type { Compiler } from "./compiler.ts";
import { JitOptionError } from "./errors.ts";
import {
  type CpuFeature,
  cpuFeatures,
  type IsaName,
  type IsaTarget,
  isaNames,
  optionalFlags,
  requiredFlags,
} from "./isa-flags.ts";

/** The portable floor; the probe itself is compiled for it. */
export const scalarTarget: IsaTarget = { isa: "scalar", flags: ["-DOI_ISA_SCALAR=1"] };

/** The features set in the bit mask that `oi_isa_probe` returns. */
export function featuresOf(mask: number): ReadonlySet<CpuFeature> {
  return new Set(cpuFeatures.filter((_, bit) => (mask & (1 << bit)) !== 0));
}

/**
 * The best instruction set, or the one asked for. `avx512bf16-emulated` is AVX-512 whose bf16 dot
 * product is emulated to the bit: slow, and meant for testing avx512bf16 code where that is
 * missing.
 *
 * @throws JitOptionError if the machine or the compiler lacks the one asked for.
 */
export function chooseIsa(
  compiler: Compiler,
  features: ReadonlySet<CpuFeature>,
  wanted?: string,
): IsaTarget {
  const usable = isaNames.filter((isa) => lacking(isa, compiler, features) === undefined);
  if (wanted === undefined) return targetOf(usable[0] ?? "scalar", compiler, features);
  const emulated = wanted === "avx512bf16-emulated";
  const name = isaNames.find((isa) => isa === (emulated ? "avx512" : wanted));
  const reason = name === undefined ? "is not known" : lacking(name, compiler, features);
  if (name === undefined || reason !== undefined) {
    const names = [...usable, ...(usable.includes("avx512") ? ["avx512bf16-emulated"] : [])];
    throw new JitOptionError(
      "The instruction set",
      `'${wanted}', which ${reason}`,
      names.join(", "),
    );
  }
  const target = targetOf(name, compiler, features);
  if (!emulated) return target;
  const flags = target.flags.map((flag) =>
    flag.startsWith("-DOI_ISA_") ? "-DOI_ISA_AVX512BF16=1" : flag,
  );
  return { isa: "avx512bf16", flags: [...flags, "-DOI_EMULATE_BF16DOT=1"] };
}

function lacking(
  isa: IsaName,
  compiler: Compiler,
  features: ReadonlySet<CpuFeature>,
): string | undefined {
  if (isa !== "scalar" && !features.has(isa)) return "this processor does not have";
  if (isa === "avx512bf16" && !features.has("avx512")) return "this processor does not have";
  const unknown = requiredFlags[isa].filter((flag) => !compiler.isaFlags.has(flag));
  return unknown.length === 0 ? undefined : `${compiler.version} cannot compile for (${unknown})`;
}

function targetOf(isa: IsaName, compiler: Compiler, features: ReadonlySet<CpuFeature>): IsaTarget {
  const extra = (optionalFlags[isa] ?? [])
    .filter(([feature, flag]) => features.has(feature) && compiler.isaFlags.has(flag))
    .map(([, flag]) => flag);
  return { isa, flags: [`-DOI_ISA_${isa.toUpperCase()}=1`, ...requiredFlags[isa], ...extra] };
}
