// What a user's stages and criterion gave, checked before it goes anywhere.

import { Tensor } from "@open-infra/tensor";
import type { MicroBatch } from "./micro-batches.ts";

/**
 * The tensors a user's code gave, dense, and with memory of their own: what shares that of `lent`
 * would change when that memory is used again.
 */
export function givenTensors(
  who: string,
  what: string,
  tensors: readonly unknown[] | undefined,
  lent: MicroBatch,
): MicroBatch {
  if (!Array.isArray(tensors)) throw new TypeError(`${who} gave no ${what}; expected Tensor[]`);
  return tensors.map((tensor: unknown, i) => {
    if (!(tensor instanceof Tensor)) {
      throw new TypeError(`${who}: ${what}[${i}] is ${typeof tensor}; expected a Tensor`);
    }
    const shared = lent.some(({ storage }) => storage === tensor.storage);
    return shared ? tensor.clone() : tensor.contiguous();
  });
}

/** One gradient a tensor, of its shape, or without elements where there is none to give. */
export function checkGradients(who: string, gradients: MicroBatch, of: MicroBatch): void {
  if (gradients.length !== of.length) {
    throw new TypeError(`${who} gave ${gradients.length} gradients; expected ${of.length}`);
  }
  gradients.forEach((gradient, i) => {
    const { shape } = of[i] as Tensor;
    if (gradient.size === 0 || sameShape(gradient.shape, shape)) return;
    throw new TypeError(
      `${who} gave a gradient of shape [${gradient.shape}] for tensor ${i}; expected [${shape}]`,
    );
  });
}

function sameShape(a: readonly number[], b: readonly number[]): boolean {
  return a.length === b.length && a.every((size, i) => size === b[i]);
}
