// Matrix tiles: the instruction, and its emulation in C, against sums computed here in exact steps.
// Both must agree to the bit, with subnormals, infinities and NaN among the operands.

import { bf16ToNumber, type DType, Tensor } from "@open-infra/tensor";
import { requirement, seededRandom, testSeed } from "@open-infra/testing";
import { afterAll, describe, expect, it } from "vitest";
import { createDevice } from "../src/create-device.ts";
import type { Device } from "../src/device.ts";
import { JitOptionError } from "../src/errors.ts";
import { defineKernel, type Operation } from "../src/operation.ts";
import { fusedF32 } from "./fused.ts";
import { needsCompiler } from "./helpers.ts";

interface Args {
  readonly left: Tensor;
  readonly right: Tensor | null;
  readonly sums: Tensor;
  readonly n: number;
}

function operation(entry: "tiles" | "transposed"): Operation<Args> {
  const kernel = defineKernel({
    language: "c",
    source: new URL("kernels/tiles.c", import.meta.url),
    entry,
    params: { left: "ptr", right: "ptr", sums: "ptr", n: "i64" },
    constants: () => ({}),
    pack: (args: Args) => ({ ...args }),
  });
  return { name: entry, check: () => {}, reference: () => {}, kernels: { cpu: kernel } };
}

const multiply = operation("tiles");
const transpose = operation("transposed");
const seed = testSeed();

function open(isa: string): Device | undefined {
  try {
    return createDevice({ backend: "cpu", isa, threads: 2 });
  } catch (error) {
    if (!(error instanceof JitOptionError)) throw error;
    requirement(`tiles with ${isa}`, error.message, "optional");
    return undefined;
  }
}

const devices = requirement("tiles", needsCompiler)
  ? []
  : ["amx", "amx-emulated"].flatMap((isa) => {
      const device = open(isa);
      return device === undefined ? [] : [{ isa, device }];
    });
afterAll(() => {
  for (const { device } of devices) device[Symbol.dispose]();
});

const flush = (x: number): number => (Math.abs(x) < 2 ** -126 ? 0 * x : x);
const sum = (x: number, y: number): number => flush(Math.fround(flush(x) + flush(y)));

/** Element (m, n) of a product added to `before`, step by step. */
function element(left: Float64Array, right: Float64Array, at: number, before: number): number {
  const [m, n] = [at >> 4, at & 15];
  const parts = [0, 0];
  for (let k = 0; k < 32; k++) {
    const a = left[m * 32 + k] as number;
    const b = right[(k >> 1) * 32 + 2 * n + (k & 1)] as number;
    parts[k & 1] = fusedF32(a, b, parts[k & 1] as number);
  }
  return sum(before, sum(parts[0] as number, parts[1] as number));
}

function tensor(dtype: DType, values: ArrayLike<number>): Tensor {
  const out = Tensor.empty([values.length], dtype);
  (out.raw() as Uint16Array).set(values);
  return out;
}

describe.each(devices)("tiles ($isa)", ({ isa, device }) => {
  it("are said in the device's description", () => {
    expect(device.description).toContain(isa === "amx" ? "cpu (amx," : "cpu (amx, emulated,");
  });

  it.each([
    ["near one", 3, 0],
    ["of many sizes", 60, 0],
    ["down to subnormals", 127, 0],
    ["with infinities and NaN", 40, 0.002],
  ])("multiply and add step by step: numbers %s", (_, spread, specials) => {
    const random = seededRandom(seed);
    const n = 40;
    const codes = (): Uint16Array =>
      Uint16Array.from({ length: 512 * n }, () => {
        const sign = random.int(0, 2) * 0x8000;
        if (random.next() < specials) return sign + random.pick([0x7f80, 0x7fc1]);
        return sign + (127 - random.int(0, spread + 1)) * 128 + random.int(0, 128);
      });
    const [left, right] = [codes(), codes()];
    const start = Float32Array.from(
      { length: 256 * n },
      () => random.normal() * 2 ** -random.int(0, spread + 20),
    );
    const sums = tensor("f32", start);
    device.run(multiply, { left: tensor("bf16", left), right: tensor("bf16", right), sums, n });
    const got = sums.raw() as Float32Array;
    const values = (all: Uint16Array, i: number): Float64Array =>
      Float64Array.from(all.subarray(i * 512, (i + 1) * 512), bf16ToNumber);
    for (let i = 0; i < n; i++) {
      const [a, b] = [values(left, i), values(right, i)];
      for (let at = 0; at < 256; at++) {
        const want = element(a, b, at, start[i * 256 + at] as number);
        if (!Object.is(got[i * 256 + at], want)) {
          expect.fail(`element ${at} of product ${i}: ${got[i * 256 + at]}, not ${want} (${seed})`);
        }
      }
    }
  });

  it("transposes words", () => {
    const words = Int32Array.from({ length: 256 }, (_, i) => i);
    const out = Tensor.empty([256], "i32");
    device.run(transpose, { left: tensor("i32", words), right: null, sums: out, n: 0 });
    const want = words.map((i) => (i % 16) * 16 + (i >> 4));
    expect([...out.raw()]).toEqual([...want]);
  });
});
