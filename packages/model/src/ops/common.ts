// What the small operations of this package share: the kernel folder, thread counts, and the way
// references write their results.

import type { Target } from "@open-infra/jit";
import { encodeInto, type Tensor } from "@open-infra/tensor";

/** A dtype that activations may have. */
export type ActDType = "f32" | "bf16";

export const actDTypes: readonly ActDType[] = ["f32", "bf16"];

export function kernelUrl(file: string): URL {
  return new URL(`../../kernels/${file}`, import.meta.url);
}

/** Below this many elements a thread, waking it costs more than it saves. */
const elementsPerThread = 16384;

export function threadsFor(elements: number, target: Target): number {
  return Math.min(target.threads, Math.ceil(elements / elementsPerThread));
}

/** Rounds `values` to the dtype of a contiguous tensor and writes them. */
export function write(out: Tensor, values: ArrayLike<number>): void {
  encodeInto(out.dtype, values, out.raw());
}
