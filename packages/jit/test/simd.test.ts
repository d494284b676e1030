// oi_simd.h against the tensor package's conversions and float64 arithmetic, on every instruction
// set this machine can run and with every compiler there is. All instruction sets must agree to the
// bit, except where the order of a sum is the vector's width.

import {
  bf16FromNumber,
  bf16ToNumber,
  type DType,
  e4m3FromNumber,
  e4m3ToNumber,
  e5m2FromNumber,
  e5m2ToNumber,
  f16FromNumber,
  f16ToNumber,
  Tensor,
} from "@open-infra/tensor";
import { hasProgram, requirement, seededRandom, testSeed } from "@open-infra/testing";
import { afterAll, describe, expect, it } from "vitest";
import { findCompiler } from "../src/compiler.ts";
import { CpuDevice } from "../src/cpu-device.ts";
import { createDevice } from "../src/create-device.ts";
import type { Device } from "../src/device.ts";
import { JitOptionError } from "../src/errors.ts";
import { defineKernel, type Operation } from "../src/operation.ts";
import { readJitOptions } from "../src/options.ts";
import { fusedF32 } from "./fused.ts";
import { needsCompiler } from "./helpers.ts";

const ops: readonly string[] = [
  ...["fromF16", "toF16", "fromBf16", "toBf16", "fromE4m3", "toE4m3", "toE4m3Sat", "fromE5m2"],
  ...["toE5m2", "exp", "sum", "hmax", "max", "min", "bf16dot", "fma", "set"],
];

interface Args {
  readonly op: string;
  readonly x: Tensor;
  readonly y: Tensor | null;
  readonly out: Tensor;
  readonly n: number;
}

function operation(entry: "simd" | "scalars"): Operation<Args> {
  const kernel = defineKernel({
    language: "c",
    source: new URL("kernels/simd.c", import.meta.url),
    entry,
    params: { x: "ptr", y: "ptr", out: "ptr", n: "i64", op: "i64" },
    constants: () => ({}),
    pack: ({ op, x, y, out, n }: Args) => ({ x, y, out, n, op: ops.indexOf(op) }),
    threads: () => 1,
  });
  return { name: entry, check: () => {}, reference: () => {}, kernels: { cpu: kernel } };
}

const simd = operation("simd");
const scalars = operation("scalars");
const seed = testSeed();
const SIZE = 1 << 16;

/** Floats that conversions get wrong: every exponent, halfway points, neighbours, specials. */
function awkwardFloats(): Float32Array {
  const random = seededRandom(seed);
  const bits = new Uint32Array(SIZE);
  for (let i = 0; i < SIZE; i++) {
    const sign = random.int(0, 2) * 0x80000000;
    const near = 127 - 18 + random.int(0, 36); // Where the small formats are.
    const exponent = i % 4 === 0 ? random.int(0, 256) : near;
    const kept = random.pick([0, 1, 2, 3, 4, 7, 8, 10, 11, 23]);
    const fraction = random.int(0, 1 << kept) * 2 ** (23 - kept);
    const nudge = i % 3 === 0 ? random.int(-1, 2) : 0;
    bits[i] = sign + exponent * 2 ** 23 + fraction + nudge;
  }
  bits.set([0, 0x80000000, 0x7f800000, 0xff800000, 0x7fc00000, 1, 0x80000001, 0x7f7fffff]);
  return new Float32Array(bits.buffer);
}

function tensor(dtype: DType, values: ArrayLike<number>): Tensor {
  const out = Tensor.empty([values.length], dtype);
  (out.raw() as Uint8Array).set(values);
  return out;
}

/** NaNs are equal, zeros differ by sign. */
function sameNumbers(got: ArrayLike<number>, want: ArrayLike<number>, what: string): void {
  for (let i = 0; i < want.length; i++) {
    if (!Object.is(got[i], want[i])) {
      expect.fail(`${what}: element ${i} is ${got[i]}, expected ${want[i]} (seed ${seed})`);
    }
  }
}

const floats = awkwardFloats();
const f32 = tensor("f32", floats);
const allBytes = tensor(
  "u8",
  Uint8Array.from({ length: 256 }, (_, i) => i),
);
const allHalves = tensor(
  "bf16",
  Uint16Array.from({ length: SIZE }, (_, i) => i),
);

function run(device: Device, op: string, x: Tensor, dtype: DType, y?: Tensor): ArrayLike<number> {
  const out = Tensor.empty([x.size], dtype);
  device.run(simd, { op, x, y: y ?? null, out, n: x.size });
  return out.raw() as ArrayLike<number>;
}

/** VDPBF16PS: the odd product first. */
function dot(acc: number, a: readonly number[], b: readonly number[]): number {
  const odd = fusedF32(a[1] as number, b[1] as number, acc);
  return fusedF32(a[0] as number, b[0] as number, odd);
}

const isas = ["scalar", "avx2", "avx512", "amx", "avx512bf16", "avx512bf16-emulated", "neon"];
const compilers = [...new Set([process.env.CC ?? "cc", "clang", "clang-14"])].filter(
  (cc) => cc === process.env.CC || hasProgram(cc),
);

function openAll(): { name: string; device: Device }[] {
  if (requirement("vector helpers", needsCompiler)) return [];
  return compilers.flatMap((cc) => {
    const compiler = findCompiler({ cc });
    if (compiler === undefined) return [];
    return isas.flatMap((isa) => {
      try {
        const jit = { ...readJitOptions(), isa };
        return [{ name: `${isa}, ${cc}`, device: new CpuDevice({ compiler, jit, threads: 1 }) }];
      } catch (error) {
        if (error instanceof JitOptionError) return []; // This machine lacks it.
        throw error;
      }
    });
  });
}

const devices = openAll();
afterAll(() => {
  for (const { device } of devices) device[Symbol.dispose]();
});

describe.each(devices)("oi_simd.h ($name)", ({ name, device }) => {
  it("widens every code exactly", () => {
    const halves = allHalves.raw() as Uint16Array;
    const bytes = allBytes.raw() as Uint8Array;
    const check = (op: string, x: Tensor, codes: ArrayLike<number>, to: (c: number) => number) =>
      sameNumbers(run(device, op, x, "f32"), Array.from(codes, to), op);
    check("fromF16", allHalves, halves, f16ToNumber);
    check("fromBf16", allHalves, halves, bf16ToNumber);
    check("fromE4m3", allBytes, bytes, e4m3ToNumber);
    check("fromE5m2", allBytes, bytes, e5m2ToNumber);
  });

  it("narrows like the tensor package", () => {
    const values = (decode: (c: number) => number) => (c: ArrayLike<number>) =>
      Array.from(c, decode);
    const check = (
      op: string,
      dtype: DType,
      from: (x: number) => number,
      decode: (c: number) => number,
    ) => {
      const got = values(decode)(run(device, op, f32, dtype));
      sameNumbers(got, values(decode)(Array.from(floats, from)), op);
    };
    check("toF16", "f16", f16FromNumber, f16ToNumber);
    check("toBf16", "bf16", bf16FromNumber, bf16ToNumber);
    check("toE4m3", "e4m3fn", (x) => e4m3FromNumber(x), e4m3ToNumber);
    check("toE4m3Sat", "e4m3fn", (x) => e4m3FromNumber(x, true), e4m3ToNumber);
    check("toE5m2", "e5m2", (x) => e5m2FromNumber(x), e5m2ToNumber);
  });

  it("does the same to single elements", () => {
    const out = Tensor.empty([SIZE * 4], "f32");
    device.run(scalars, { op: "set", x: f32, y: null, out, n: SIZE });
    const want = new Float64Array(SIZE * 4);
    floats.forEach((x, i) => {
      want[4 * i] = e4m3ToNumber(e4m3FromNumber(x));
      want[4 * i + 1] = e5m2ToNumber(e5m2FromNumber(x));
      want[4 * i + 2] = f16ToNumber(f16FromNumber(x));
      want[4 * i + 3] = bf16ToNumber(bf16FromNumber(x));
    });
    sameNumbers(out.raw(), want, "scalars");
  });

  it("raises e to within two units in the last place", () => {
    const x = new Float32Array(SIZE);
    for (let i = 0; i < SIZE; i++) x[i] = -110 + (205 * i) / SIZE;
    const edges = [0, -0, 88.72283, 88.7228, 88.8, -87.33, -103.97, -104, 1e-8, 709, -1000];
    x.set([...edges, Infinity, -Infinity, NaN]);
    const got = run(device, "exp", tensor("f32", x), "f32");
    let worst = 0;
    for (let i = 0; i < SIZE; i++) {
      const want = Math.exp(x[i] as number);
      const y = got[i] as number;
      if (Math.fround(want) === y || (Number.isNaN(want) && Number.isNaN(y))) continue;
      const ulp = Math.max(2 ** -149, 2 ** (Math.floor(Math.log2(want)) - 23));
      const error = Math.abs(y - want) / ulp;
      worst = Math.max(worst, Number.isNaN(error) ? Infinity : error);
      if (!(error <= 2)) expect.fail(`exp(${x[i]}) is ${y}, expected ${want}: ${error} ulp`);
    }
    expect(worst).toBeLessThanOrEqual(2);
  });

  it("reduces lanes as one balanced tree", () => {
    const random = seededRandom(seed);
    const x = Float32Array.from({ length: 4096 }, () => random.normal() * 2 ** random.int(-8, 8));
    const sums = run(device, "sum", tensor("f32", x), "f32");
    const tops = run(device, "hmax", tensor("f32", x), "f32");
    const lanes = sums[1] as number;
    expect(lanes).toBe(/avx512|amx/.test(name) ? 16 : /avx2/.test(name) ? 8 : 4);
    for (let i = 0; i < x.length; i += lanes) {
      const tree = Float32Array.from(x.subarray(i, i + lanes));
      for (let half = lanes / 2; half >= 1; half /= 2) {
        for (let j = 0; j < half; j++) tree[j] = (tree[j] as number) + (tree[j + half] as number);
      }
      expect(sums[i]).toBe(tree[0]);
      expect(tops[i]).toBe(Math.max(...x.subarray(i, i + lanes)));
    }
  });

  it("selects, fuses and broadcasts", () => {
    const random = seededRandom(seed + 1);
    const y = Float32Array.from({ length: SIZE }, () => Math.fround(random.normal() * 100));
    const finite = floats.map((x) => (Number.isFinite(x) && Math.abs(x) < 1e18 ? x : 1));
    const [x, other] = [tensor("f32", finite), tensor("f32", y)];
    const pick = (by: (a: number, b: number) => boolean) =>
      finite.map((a, i) => (by(a, y[i] as number) ? a : (y[i] as number)));
    sameNumbers(
      run(device, "max", x, "f32", other),
      pick((a, b) => a > b),
      "max",
    );
    sameNumbers(
      run(device, "min", x, "f32", other),
      pick((a, b) => a < b),
      "min",
    );
    // The product of two floats is exact in float64, and so is adding zero.
    const products = finite.map((a, i) => Math.fround(a * (y[i] as number)) + 0);
    sameNumbers(run(device, "fma", x, "f32", other), products, "fma");
    const every16 = (values: ArrayLike<number>): number[] =>
      Array.from(values).filter((_, i) => i % 16 === 0);
    sameNumbers(every16(run(device, "set", f32, "f32")), every16(floats), "set");
  });

  it.runIf(name.startsWith("avx512bf16"))("adds pairs of bf16 products like VDPBF16PS", () => {
    const random = seededRandom(seed + 2);
    const n = SIZE / 2;
    const codes = (spread: number): number[] =>
      Array.from({ length: 2 * n }, () => {
        const exponent = 127 - random.int(0, spread);
        return random.int(0, 2) * 0x8000 + exponent * 128 + random.int(0, 128);
      });
    for (const spread of [4, 40, 127]) {
      const [a, b] = [codes(spread), codes(spread)];
      const start = Float32Array.from(
        { length: n },
        () => random.normal() * 2 ** -random.int(0, spread),
      );
      const out = tensor("f32", start);
      device.run(simd, { op: "bf16dot", x: tensor("bf16", a), y: tensor("bf16", b), out, n });
      const pair = (codes: number[], i: number): number[] =>
        [codes[2 * i] as number, codes[2 * i + 1] as number].map(bf16ToNumber);
      const want = start.map((acc, i) => dot(acc, pair(a, i), pair(b, i)));
      sameNumbers(out.raw() as ArrayLike<number>, want, `bf16dot, ${spread}`);
    }
  });
});

describe.skipIf(requirement("instruction sets", needsCompiler))("instruction sets", () => {
  it("default to the best one", () => {
    using device = createDevice({ backend: "cpu", threads: 1 });
    const best = devices.filter(({ name }) => !name.includes("emulated")).map(({ name }) => name);
    expect(best.some((name) => device.description.includes(name.split(",")[0] as string))).toBe(
      true,
    );
    expect(devices.length).toBeGreaterThanOrEqual(1);
  });
});
