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
  requiredFeatures,
  requiredFlags,
} from "./isa-flags.ts";

/** The portable floor; the probe itself is compiled for it. */
export const scalarTarget: IsaTarget = { isa: "scalar", flags: ["-DOI_ISA_SCALAR=1"] };

/** The features set in the bit mask that `oi_isa_probe` returns. */
export function featuresOf(mask: number): ReadonlySet<CpuFeature> {
  return new Set(cpuFeatures.filter((_, bit) => (mask & (1 << bit)) !== 0));
}

/** What AVX-512 stands in for, exact to the bit and slow, and how kernels see it. */
const emulations: Readonly<Record<string, { readonly isa: IsaName; readonly macro: string }>> = {
  "amx-emulated": { isa: "amx", macro: "-DOI_EMULATE_TILES=1" },
  "avx512bf16-emulated": { isa: "avx512bf16", macro: "-DOI_EMULATE_BF16DOT=1" },
};

/** Whether the system has to be asked for matrix tiles, if this instruction set is wanted. */
export function wantsTiles(wanted: string | undefined): boolean {
  return wanted === undefined || wanted === "amx";
}

/**
 * The best instruction set, or the one asked for. `amx-emulated` and `avx512bf16-emulated` are
 * AVX-512 with matrix tiles, or the bf16 dot product, emulated to the bit: slow, and meant for
 * testing such code where the instructions are missing.
 *
 * @throws JitOptionError if the machine, its system or the compiler lacks the one asked for.
 */
export function chooseIsa(
  compiler: Compiler,
  features: ReadonlySet<CpuFeature>,
  wanted?: string,
): IsaTarget {
  const usable = isaNames.filter((isa) => lacking(isa, compiler, features) === undefined);
  if (wanted === undefined) {
    const best = targetOf(usable[0] ?? "scalar", compiler, features);
    const refused = features.has("amxRefused");
    return refused ? { ...best, note: "the system does not grant amx" } : best;
  }
  const emulation = emulations[wanted];
  const name = isaNames.find((isa) => isa === (emulation === undefined ? wanted : "avx512"));
  const reason = name === undefined ? "is not known" : lacking(name, compiler, features);
  if (name === undefined || reason !== undefined) {
    const names = [...usable, ...(usable.includes("avx512") ? Object.keys(emulations) : [])];
    throw new JitOptionError(
      "The instruction set",
      `'${wanted}', which ${reason}`,
      names.join(", "),
    );
  }
  const target = targetOf(name, compiler, features);
  if (emulation === undefined) return target;
  const { isa, macro } = emulation;
  const flags = target.flags.map((flag) =>
    flag.startsWith("-DOI_ISA_") ? `-DOI_ISA_${isa.toUpperCase()}=1` : flag,
  );
  return { isa, flags: [...flags, macro], note: "emulated" };
}

function lacking(
  isa: IsaName,
  compiler: Compiler,
  features: ReadonlySet<CpuFeature>,
): string | undefined {
  if (isa === "amx" && features.has("amxRefused")) {
    return "this processor has, but its system does not grant (ARCH_REQ_XCOMP_PERM)";
  }
  if (requiredFeatures[isa].some((feature) => !features.has(feature))) {
    return "this processor does not have";
  }
  const unknown = requiredFlags[isa].filter((flag) => !compiler.isaFlags.has(flag));
  return unknown.length === 0 ? undefined : `${compiler.version} cannot compile for (${unknown})`;
}

function targetOf(isa: IsaName, compiler: Compiler, features: ReadonlySet<CpuFeature>): IsaTarget {
  const extra = (optionalFlags[isa] ?? [])
    .filter(([feature, flag]) => features.has(feature) && compiler.isaFlags.has(flag))
    .map(([, flag]) => flag);
  return { isa, flags: [`-DOI_ISA_${isa.toUpperCase()}=1`, ...requiredFlags[isa], ...extra] };
}
