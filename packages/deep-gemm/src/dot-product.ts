// Whether a processor's bf16 dot product is worth using where either way gives exact products.

import { bf16Products } from "@open-infra/jit";

/** Whether kernels for `isa` should multiply pairs of bf16 rather than widened float32. */
export function dotProductPays(isa: string): boolean {
  return bf16Products(isa) === "dot";
}
