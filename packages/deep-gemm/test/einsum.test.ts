// Einsums and the product with gaps between heads, on every backend, against float64.

import type { Tensor } from "@open-infra/tensor";
import { calcDiff, seededRandom, testSeed } from "@open-infra/testing";
import { afterAll, describe, expect, it } from "vitest";
import {
  einsum,
  fp8Einsum,
  fp8GemmNt,
  fp8GemmNtSkipHeadMid,
  type Operand,
  type ScaledTensor,
} from "../src/index.ts";
import {
  familyDevices,
  poisoned,
  product,
  randomScaled,
  randomTensor,
  rowBytes,
  tolerance,
  valuesOf,
} from "./helpers.ts";

const seed = testSeed();
const devices = familyDevices();
afterAll(() => {
  for (const { device } of devices) device[Symbol.dispose]();
});

/** Head h of an operand [B,H,K], or of b [H,N,K], as numbers. */
function headOf(operand: Operand, d: number, h: number, granM: number): Float64Array {
  const pick = (t: Tensor): Tensor => t.select(d, h).clone();
  return "scales" in operand
    ? valuesOf({ data: pick(operand.data), scales: pick(operand.scales) }, granM)
    : pick(operand).toFloat64();
}

/** Codes and scales with dimensions permuted by a view. */
function view(operand: ScaledTensor, turn: (t: Tensor) => Tensor): ScaledTensor {
  return { data: turn(operand.data), scales: turn(operand.scales) };
}

describe.each(devices)("$name", ({ name, device }) => {
  const quick = name === "reference" || name.endsWith("scalar");

  it("D11: bmk,bnk->mn sums over b in order, into f32 with C and into bf16", () => {
    const random = seededRandom(seed);
    const [s, m, n, k] = quick ? [9, 6, 10, 24] : [129, 64, 72, 40];
    const a = randomTensor(random, [s, m, k], "bf16");
    const b = randomTensor(random, [s, n, k], "bf16");
    const want = new Float64Array(m * n);
    for (let i = 0; i < s; i++) {
      const part = product(a.select(0, i).toFloat64(), b.select(0, i).toFloat64(), [m, n, k]);
      part.forEach((x, at) => {
        want[at] = (want[at] as number) + x;
      });
    }
    for (const dtype of ["f32", "bf16"] as const) {
      const d = poisoned([m, n], dtype);
      einsum(device, "bmk,bnk->mn", { a, b, d });
      const label = `${dtype} seed ${seed}`;
      expect(calcDiff(d.toFloat64(), want), label).toBeLessThan(tolerance(dtype));
      const again = poisoned([m, n], dtype);
      einsum(device, "bmk, bnk -> mn", { a, b, d: again, threads: 1 });
      expect(again.bytes(), label).toEqual(d.bytes());
    }
    const d = randomTensor(random, [m, n], "f32", () => random.normal() * 32);
    const sum = want.map((x, i) => x + (d.toFloat64()[i] as number));
    einsum(device, "bmk,bnk->mn", { a, b, d, c: d });
    expect(calcDiff(d.toFloat64(), sum), `seed ${seed}`).toBeLessThan(1e-9);
  });

  it("D11: bhr,hdr->bhd and bhd,hdr->bhr on strided operands", () => {
    const random = seededRandom(seed);
    const [tokens, heads, r, dim] = [quick ? 3 : 50, 3, 136, 40];
    const b = randomTensor(random, [heads, dim, r], "bf16");
    const x = randomTensor(random, [tokens, heads, r + 64], "bf16").slice(2, 0, r);
    const y = poisoned([tokens, heads, dim + 8], "bf16").slice(2, 0, dim);
    einsum(device, "bhr,hdr->bhd", { a: x, b, d: y });
    const wide = poisoned([tokens, heads, r + 64], "bf16");
    const back = wide.slice(2, 0, r);
    einsum(device, "bhd,hdr->bhr", { a: y, b, d: back });
    for (let h = 0; h < heads; h++) {
      const [w, label] = [b.select(0, h), `head ${h}, seed ${seed}`];
      const up = product(headOf(x, 1, h, 1), w.toFloat64(), [tokens, dim, r]);
      expect(calcDiff(y.select(1, h).toFloat64(), up), label).toBeLessThan(5e-6);
      const turned = w.transpose(0, 1).toFloat64();
      const down = product(headOf(y, 1, h, 1), turned, [tokens, r, dim]);
      expect(calcDiff(back.select(1, h).toFloat64(), down), label).toBeLessThan(5e-6);
    }
    const gap = wide.slice(2, r, r + 64);
    expect(
      gap
        .clone()
        .bytes()
        .every((byte) => byte === 0xff),
    ).toBe(true);
  });

  it("D11: fp8Einsum, all three", () => {
    const random = seededRandom(seed);
    const [tokens, heads, r, dim] = [quick ? 5 : 140, 2, 264, 136];
    const b = randomScaled(random, [heads, dim, r], 128);
    const x = randomScaled(random, [tokens, heads, r], 1);
    // randomScaled shares scales among rows of the last matrix; here every (token, head) has its
    // own.
    const y = randomScaled(random, [tokens, heads, dim], 1);
    const up = poisoned([tokens, heads, dim], "f32");
    fp8Einsum(device, "bhr,hdr->bhd", { a: x, b, d: up });
    const down = poisoned([tokens, heads, r], "bf16");
    fp8Einsum(device, "bhd,hdr->bhr", { a: y, b, d: down });
    // Scales along b: made as [H, D, B] and viewed as the operands lie.
    const byToken = (width: number): ScaledTensor =>
      randomScaled(random, [heads, width, tokens], 1);
    const [p, q] = [byToken(dim), byToken(r)];
    const lying = (t: Tensor): Tensor => t.transpose(0, 2).transpose(1, 2).clone();
    const c = randomTensor(random, [heads, dim, r], "f32");
    const grad = poisoned([heads, dim, r], "f32");
    fp8Einsum(device, "bhd,bhr->hdr", { a: view(p, lying), b: view(q, lying), d: grad, c });
    for (let h = 0; h < heads; h++) {
      const label = `head ${h}, seed ${seed}`;
      const w = headOf(b, 0, h, 128);
      const wTurned = new Float64Array(w.length);
      w.forEach((v, i) => {
        wTurned[(i % r) * dim + Math.floor(i / r)] = v;
      });
      const wantUp = product(headOf(x, 1, h, 1), w, [tokens, dim, r]);
      expect(calcDiff(up.select(1, h).toFloat64(), wantUp), label).toBeLessThan(1e-10);
      const wantDown = product(headOf(y, 1, h, 1), wTurned, [tokens, r, dim]);
      expect(calcDiff(down.select(1, h).toFloat64(), wantDown), label).toBeLessThan(5e-6);
      const own = c.select(0, h).toFloat64();
      const wantGrad = product(headOf(p, 0, h, 1), headOf(q, 0, h, 1), [dim, r, tokens]).map(
        (v, i) => v + (own[i] as number),
      );
      expect(calcDiff(grad.select(0, h).toFloat64(), wantGrad), label).toBeLessThan(1e-9);
    }
  });

  it("D12: columns between heads keep what they held; the others are the plain product's", () => {
    const random = seededRandom(seed);
    const cases = [
      [2, [128, 64, 128]],
      [3, [20, 7, 5]],
      [1, [0, 9, 24]],
      [2, [16, 0, 16]],
    ] as const;
    for (const [heads, [left, mid, right]] of cases) {
      const [m, k, n] = [quick ? 3 : 40, 160, heads * (left + right)];
      const a = randomScaled(random, [m, k], 1);
      const b = randomScaled(random, [n, k], 128);
      const plain = poisoned([m, n], "bf16");
      fp8GemmNt(device, { a, b, d: plain });
      const width = left + mid + right;
      const d = poisoned([m, heads * width], "bf16").fill(7);
      fp8GemmNtSkipHeadMid(device, { a, b, d, headSplits: [left, mid, right] });
      const label = `${heads} heads of ${left}, ${mid}, ${right}, seed ${seed}`;
      for (let h = 0; h < heads; h++) {
        const from = h * (left + right);
        const to = h * width;
        const cut = (t: Tensor, at: number, size: number): Uint8Array =>
          rowBytes(t.slice(1, at, at + size), 0, m);
        expect(cut(d, to, left), label).toEqual(cut(plain, from, left));
        const rightOf = cut(plain, from + left, right);
        expect(cut(d, to + left + mid, right), label).toEqual(rightOf);
        const middle = d.slice(1, to + left, to + left + mid).toFloat32();
        expect(
          middle.every((x) => x === 7),
          label,
        ).toBe(true);
      }
    }
  });
});
