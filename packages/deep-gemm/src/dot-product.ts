// Whether a processor's bf16 dot product is worth using where either way gives exact products.

import { cpus } from "node:os";

/** Intel's runs at half the rate of its float32 multiply-adds, which do the same work. */
const isIntel = /intel/i.test(cpus()[0]?.model ?? "");

/** Whether kernels for `isa` should multiply pairs of bf16 rather than widened float32. */
export function dotProductPays(isa: string): boolean {
  return isa === "avx512bf16" && !isIntel;
}
