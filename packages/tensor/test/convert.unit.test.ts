// Every code of every small format, and every place where rounding decides: midpoints between
// neighbours and the float32 on either side of them. The formats are described here a second time,
// as sign, exponent and mantissa fields, so that the code under test is not its own oracle.
// Checked once against torch 2.13 (CPU): all upper halves of float32 with 14 patterns of lower
// halves, to f16, bf16, e4m3fn (which that torch saturates) and e5m2, and all codes back: no
// difference.

import {
  bf16FromNumber,
  bf16ToNumber,
  ConversionError,
  convertInto,
  type DType,
  DTypeError,
  decodeInto,
  dtypes,
  e2m1FromNumber,
  e2m1ToNumber,
  e4m3FromNumber,
  e4m3ToNumber,
  e5m2FromNumber,
  e5m2ToNumber,
  encodeInto,
  f16FromNumber,
  f16ToNumber,
  type RawArray,
  ShapeError,
  Tensor,
  ue8m0FromNumber,
  ue8m0ToNumber,
} from "@open-infra/tensor";
import { seededRandom, testSeed } from "@open-infra/testing";
import { describe, expect, it } from "vitest";

interface Format {
  readonly dtype: DType;
  readonly exponentBits: number;
  readonly mantissaBits: number;
  readonly bias: number;
  /** Code of the largest finite magnitude. */
  readonly largest: number;
  /** Code of what lies beyond it, without and with `saturate`. */
  readonly beyond: number;
  readonly beyondSaturated: number;
  readonly nan: number | undefined;
  from(x: number, saturate?: boolean): number | undefined;
  to(code: number): number;
}

const formats: readonly Format[] = [
  {
    dtype: "f16",
    exponentBits: 5,
    mantissaBits: 10,
    bias: 15,
    largest: 0x7bff,
    beyond: 0x7c00,
    beyondSaturated: 0x7c00,
    nan: 0x7e00,
    from: f16FromNumber,
    to: f16ToNumber,
  },
  {
    dtype: "bf16",
    exponentBits: 8,
    mantissaBits: 7,
    bias: 127,
    largest: 0x7f7f,
    beyond: 0x7f80,
    beyondSaturated: 0x7f80,
    nan: 0x7fc0,
    from: bf16FromNumber,
    to: bf16ToNumber,
  },
  {
    dtype: "e4m3fn",
    exponentBits: 4,
    mantissaBits: 3,
    bias: 7,
    largest: 0x7e,
    beyond: 0x7f,
    beyondSaturated: 0x7e,
    nan: 0x7f,
    from: e4m3FromNumber,
    to: e4m3ToNumber,
  },
  {
    dtype: "e5m2",
    exponentBits: 5,
    mantissaBits: 2,
    bias: 15,
    largest: 0x7b,
    beyond: 0x7c,
    beyondSaturated: 0x7b,
    nan: 0x7f,
    from: e5m2FromNumber,
    to: e5m2ToNumber,
  },
  {
    dtype: "e2m1",
    exponentBits: 2,
    mantissaBits: 1,
    bias: 1,
    largest: 0x7,
    beyond: 0x7,
    beyondSaturated: 0x7,
    nan: undefined,
    from: e2m1FromNumber,
    to: e2m1ToNumber,
  },
];

/** Magnitude of a code by the definition of the format, from its fields in binary digits. */
function magnitudeOf(format: Format, code: number): number {
  const digits = code.toString(2).padStart(format.exponentBits + format.mantissaBits, "0");
  const exponent = Number.parseInt(digits.slice(0, format.exponentBits), 2);
  let fraction = 0;
  for (const [i, digit] of [...digits.slice(format.exponentBits)].entries()) {
    fraction += Number(digit) / 2 ** (i + 1);
  }
  return exponent === 0
    ? fraction * 2 ** (1 - format.bias)
    : (1 + fraction) * 2 ** (exponent - format.bias);
}

/** The float32 next above a positive float32. */
function above(x: number): number {
  const f = Float32Array.of(x);
  new Uint32Array(f.buffer)[0]! += 1;
  return f[0] as number;
}

/** The float32 next below a positive float32. */
function below(x: number): number {
  const f = Float32Array.of(x);
  new Uint32Array(f.buffer)[0]! -= 1;
  return f[0] as number;
}

function encodeAll(dtype: DType, values: readonly number[], saturate: boolean): number[] {
  const raw = Tensor.empty([values.length], dtype).raw();
  encodeInto(dtype, Float32Array.from(values), raw, { saturate });
  if (dtype !== "e2m1") return Array.from(raw, Number);
  return values.map((_, i) => (Number(raw[i >> 1]) >> ((i & 1) * 4)) & 0xf);
}

describe.each(formats)("$dtype", (format) => {
  const { largest, exponentBits, mantissaBits } = format;
  const sign = 1 << (exponentBits + mantissaBits);
  const codes = Array.from({ length: largest + 1 }, (_, code) => code);
  const magnitudes = codes.map((code) => magnitudeOf(format, code));

  /** Inputs with the code they must round to: each value, each midpoint and its two neighbours. */
  function roundingCases(saturate: boolean): [number, number][] {
    const beyond = saturate ? format.beyondSaturated : format.beyond;
    const cases: [number, number][] = [];
    for (const code of codes) {
      const value = magnitudes[code] as number;
      // Past the largest value rounding goes on as if the format continued.
      const next = magnitudes[code + 1] ?? value + (value - (magnitudes[code - 1] as number));
      const upper = code === largest ? beyond : code + 1;
      const middle = value + (next - value) / 2;
      cases.push([value, code]);
      if (middle < 2 ** 128) {
        cases.push([middle, code % 2 === 0 ? code : upper], [above(middle), upper]);
        cases.push([below(middle), code]);
      }
    }
    cases.push([Number.POSITIVE_INFINITY, beyond], [3.4e38, beyond]);
    return cases.flatMap(([x, code]) => [
      [x, code],
      [-x, code | sign],
    ]);
  }

  it("decodes every finite code to its value, and encodes it back", () => {
    const raw = Tensor.empty([2 * codes.length], format.dtype);
    const all = [...codes, ...codes.map((code) => code | sign)];
    if (format.dtype === "e2m1")
      raw.bytes().set(all.map((_, i) => (2 * i + 1) * 16 + 2 * i).slice(0, 8));
    else all.forEach((code, i) => void (raw.raw()[i] = code));
    const f32 = raw.toFloat32();
    const f64 = raw.toFloat64();
    all.forEach((code, i) => {
      const value = magnitudes[i % codes.length] as number;
      const expected = i < codes.length ? value : -value;
      const got = [format.to(code), f32[i], f64[i]];
      if (!got.every((x) => Object.is(x, expected)) || format.from(expected) !== code) {
        expect.fail(
          `code ${code}: ${expected} decoded as ${got}, encoded ${format.from(expected)}`,
        );
      }
    });
  });

  it.each([false, true])("rounds to nearest even at every midpoint, saturate %s", (saturate) => {
    const cases = roundingCases(saturate);
    const bulk = encodeAll(
      format.dtype,
      cases.map(([x]) => x),
      saturate,
    );
    cases.forEach(([x, code], i) => {
      const one = format.from(x, saturate);
      if (one !== code || bulk[i] !== code) {
        expect.fail(`${x} became ${one} and ${bulk[i]} in bulk; expected code ${code}`);
      }
    });
  });

  it("goes through float32, not straight from double", () => {
    // A double just above a midpoint, by less than float32 sees, is the midpoint itself.
    const [low, high] = [magnitudes[2] as number, magnitudes[3] as number];
    expect(format.from(((low + high) / 2) * (1 + 2 ** -40))).toBe(2);
  });

  it("decodes every code that is no number to NaN or infinity, and encodes NaN to one code", () => {
    for (let code = largest + 1; code < sign; code++) {
      const infinite = code === format.beyond && format.dtype !== "e4m3fn";
      expect(format.to(code), `code ${code}`).toBe(
        infinite ? Number.POSITIVE_INFINITY : Number.NaN,
      );
      expect(format.to(code | sign)).toBe(infinite ? Number.NEGATIVE_INFINITY : Number.NaN);
    }
    expect(format.from(Number.NaN)).toBe(format.nan);
    if (format.nan === undefined) return;
    // Quiet, signalling, negative and full payloads.
    const nans = new Float32Array(
      Uint32Array.of(0x7fc00000, 0xffc00000, 0x7f800001, 0xffffffff, 0x7fa01234).buffer,
    );
    const raw = Tensor.empty([5], format.dtype).raw();
    encodeInto(format.dtype, nans, raw, { saturate: true });
    expect(Array.from(raw, Number)).toEqual(new Array(5).fill(format.nan));
  });

  it("gives the same in bulk as one by one, for random float32 of all sizes", () => {
    const random = seededRandom(testSeed());
    const bits = Uint32Array.from({ length: 20_000 }, () => random.int(0, 2 ** 32));
    const values = Array.from(new Float32Array(bits.buffer)).filter((x) => !Number.isNaN(x));
    for (const saturate of [false, true]) {
      const bulk = encodeAll(format.dtype, values, saturate);
      const wrong = values.findIndex((x, i) => format.from(x, saturate) !== bulk[i]);
      expect(wrong, `seed ${random.seed}, value ${values[wrong]}`).toBe(-1);
    }
  });
});

describe("ue8m0", () => {
  it("holds 2^-127 to 2^127 and NaN, both ways", () => {
    for (let code = 0; code < 255; code++) {
      expect(ue8m0ToNumber(code)).toBe(2 ** (code - 127));
      expect(ue8m0FromNumber(2 ** (code - 127))).toBe(code);
    }
    expect(ue8m0ToNumber(255)).toBeNaN();
    expect(ue8m0FromNumber(Number.NaN)).toBe(255);
  });

  it.each([0, -1, 3, 1.0000001, 2 ** -128, 2 ** 128, Number.POSITIVE_INFINITY, -0])(
    "refuses %s unless told to round",
    (x) => {
      expect(ue8m0FromNumber(x)).toBeUndefined();
      expect(() => Tensor.from([1, x], [2], "ue8m0", "scale")).toThrow(
        /ue8m0: element 1 of scale is .*; expected a power of two/,
      );
    },
  );

  it("rounds up to the next power of two like DeepGEMM", () => {
    for (let exponent = -126; exponent < 127; exponent++) {
      const power = 2 ** exponent;
      expect(ue8m0FromNumber(power, "ceil")).toBe(exponent + 127);
      expect(ue8m0FromNumber(above(power), "ceil")).toBe(exponent + 128);
      expect(ue8m0FromNumber(-below(2 * power), "ceil")).toBe(exponent + 128);
    }
    const clamped = [0, 2 ** -140, 2 ** -127, Number.POSITIVE_INFINITY, 3e38];
    expect(clamped.map((x) => ue8m0FromNumber(x, "ceil"))).toEqual([1, 1, 1, 254, 254]);
  });
});

describe("integers", () => {
  it("truncates toward zero and keeps the ends of each range", () => {
    expect([...Tensor.from([-0.9, 0.9, 254.99, 255.99], [4], "u8").raw()]).toEqual([
      0, 0, 254, 255,
    ]);
    const ends = [-(2 ** 31), 2 ** 31 - 1, -1.5, 1.5];
    expect([...Tensor.from(ends, [4], "i32").raw()]).toEqual([-(2 ** 31), 2 ** 31 - 1, -1, 1]);
    const wide = [2 ** 53 - 1, -(2 ** 63), 2 ** 63 - 1024, -7.9];
    expect([...Tensor.from(wide, [4], "i64").raw()]).toEqual([
      9007199254740991n,
      -(2n ** 63n),
      2n ** 63n - 1024n,
      -7n,
    ]);
  });

  it.each([
    ["u8", -1],
    ["u8", 256],
    ["i32", 2 ** 31],
    ["i32", -(2 ** 31) - 1],
    ["i64", 2 ** 63],
    ["i64", Number.NaN],
    ["i32", Number.NaN],
    ["u8", Number.NEGATIVE_INFINITY],
  ] as const)("%s refuses %s", (dtype, x) => {
    const make = (): Tensor => Tensor.from([0, 0, x], [3], dtype, "ids");
    expect(make).toThrow(ConversionError);
    expect(make).toThrow(`${dtype}: element 2 of ids is ${x}; expected `);
  });
});

describe("encodeInto and decodeInto", () => {
  it("pack e2m1 low nibble first and leave the last high nibble zero", () => {
    const raw = new Uint8Array([0xff, 0xff]);
    encodeInto("e2m1", [0.5, -6, 1.5], raw);
    expect([...raw]).toEqual([0xf1, 0x03]);
    const out = new Float32Array(3);
    decodeInto("e2m1", raw, out);
    expect([...out]).toEqual([0.5, -6, 1.5]);
    expect(() => Tensor.from([1, Number.NaN], [2], "e2m1", "w")).toThrow(
      "e2m1: element 1 of w is NaN",
    );
  });

  it.each(dtypes)("take any length and any kind of numbers for %s", (dtype) => {
    const numbers = Array.from({ length: 9001 }, (_, i) => 2 ** (i % 3));
    const expected = [...Tensor.from(numbers, [9001], dtype).bytes()];
    for (const values of [Float32Array.from(numbers), Float64Array.from(numbers)]) {
      expect([...Tensor.from(values, [9001], dtype).bytes()]).toEqual(expected);
    }
    expect([...Tensor.from(numbers, [9001], dtype).toFloat64()]).toEqual(numbers);
    expect(Tensor.from([], [0], dtype).toFloat32()).toHaveLength(0);
  });

  it("refuse a raw array of another type or length", () => {
    expect(() => encodeInto("f32", [1], new Uint8Array(4))).toThrow(DTypeError);
    expect(() => decodeInto("bf16", new Float32Array(1), new Float32Array(1))).toThrow(
      "decodeInto: raw array has dtype Float32Array; expected the raw array of bf16",
    );
    expect(() => encodeInto("f16", [1, 2], new Uint16Array(3))).toThrow(ShapeError);
    expect(() => decodeInto("e2m1", new Uint8Array(3), new Float32Array(4))).toThrow(
      "raw array is 3 elements long; expected 2 for 4 values of e2m1",
    );
  });
});

describe("convertInto", () => {
  it("agrees with going through numbers, for every pair of dtypes", () => {
    const numbers = Array.from({ length: 5000 }, (_, i) => 2 ** (i % 3));
    for (const from of dtypes) {
      const source = Tensor.from(numbers, [5000], from);
      for (const to of dtypes) {
        expect(source.to(to).toFloat64(), `${from} to ${to}`).toEqual(Float64Array.from(numbers));
      }
    }
  });

  it("keeps integers that float32 cannot hold", () => {
    const ids = [2 ** 31 - 1, 16777217, -(2 ** 31)];
    expect([...Tensor.from(ids, [3], "i32").to("i64").toFloat64()]).toEqual(ids);
    expect([...Tensor.from(ids, [3], "i64").to("i32").raw()]).toEqual(ids);
  });

  it("keeps doubles in f64, and rounds them once to float32 on the way to the others", () => {
    const numbers = [0.1, Math.PI, 2 ** 53 - 1, 1e300, -Number.MIN_VALUE];
    const wide = Tensor.from(numbers, [5], "f64");
    expect([...wide.toFloat64()]).toEqual(numbers);
    expect([...wide.to("f32").toFloat64()]).toEqual(numbers.map(Math.fround));
    expect([...wide.slice(0, 0, 3).to("i64").toFloat64()]).toEqual([0, 3, 2 ** 53 - 1]);
    expect([...Tensor.from([0.1], [1], "f32").to("f64").raw()]).toEqual([Math.fround(0.1)]);
  });

  it("copies bits, NaN payloads included, between equal dtypes", () => {
    const source = Tensor.empty([3], "f32");
    new Uint8Array(source.bytes().buffer).set([1, 0, 0xa0, 0x7f, 0xff, 0xff, 0xff, 0xff]);
    expect([...source.to("f32").bytes()]).toEqual([...source.bytes()]);
  });

  it("names the element that fails, whichever chunk it is in", () => {
    const source = Tensor.from(new Float32Array(10_000).fill(1), [100, 100], "f32", "scales");
    source.raw()[9_001] = 3;
    expect(() => source.to("ue8m0")).toThrow("ue8m0: element 9001 of scales is 3; expected");
    const raw: RawArray = new Uint8Array(10_000);
    expect(() => convertInto("f32", source.raw(), "u8", raw.subarray(1), 10_000)).toThrow(
      "convertInto target: raw array is 9999 elements long; expected 10000",
    );
  });
});
