// Which of a processor's ways to multiply bf16 is worth taking; all give exact products, and they
// differ in the order and rounding of sums. By name and not by a stopwatch, as the choice shows in
// the last bits.

import { cpus } from "node:os";

/**
 * `tiles`: 16 × 16 sums an instruction (`oi_tiles.h`). `dot`: pairs, by VDPBF16PS (`oi_bf16dot`).
 * `f32`: widened, and multiplied as float32.
 */
export type Bf16Products = "tiles" | "dot" | "f32";

/** Intel's dot product runs at half the rate of its float32 multiply-adds, AMD's at twice. */
const isIntel = /intel/i.test(cpus()[0]?.model ?? "");

/**
 * The fastest way on this processor for kernels of an instruction set ({@link Target}). Kernels for
 * `avx512bf16-emulated` take `dot` whatever this says (`OI_EMULATE_BF16DOT`).
 */
export function bf16Products(isa: string): Bf16Products {
  if (isa === "amx") return "tiles";
  return isa === "avx512bf16" && !isIntel ? "dot" : "f32";
}
