// A problem's matrices in this process: weights in one block that is kept for the next problem.

import { fillPattern, type Problem } from "./problem.ts";

type Words = Uint16Array<ArrayBuffer> | Float32Array<ArrayBuffer>;

let block = new ArrayBuffer(0);
let filledFor = "";

function wordsOf(dtype: Problem["dtype"], buffer: ArrayBuffer, length: number): Words {
  return dtype === "bf16"
    ? new Uint16Array(buffer, 0, length)
    : new Float32Array(buffer, 0, length);
}

/**
 * A, all copies of B one after another, and D. The weights are valid until the next call: a process
 * serves one peer and one problem at a time.
 */
export function matrices({ dtype, m, n, k, copies }: Problem): { a: Words; b: Words; d: Words } {
  const bytes = dtype === "bf16" ? 2 : 4;
  const length = copies * n * k;
  if (length * bytes > block.byteLength) {
    block = new ArrayBuffer(length * bytes);
    filledFor = "";
  }
  const b = wordsOf(dtype, block, length);
  if (filledFor !== dtype) {
    // The pattern does not depend on the shape, so it stays good.
    fillPattern(wordsOf(dtype, block, Math.floor(block.byteLength / bytes)), 2);
    filledFor = dtype;
  }
  const a = wordsOf(dtype, new ArrayBuffer(m * k * bytes), m * k);
  fillPattern(a, 1);
  return { a, b, d: wordsOf(dtype, new ArrayBuffer(m * n * bytes), m * n) };
}
