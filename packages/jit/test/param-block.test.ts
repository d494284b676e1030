// The packer compiled for a layout writes what a plain reading of the layout would, for every kind
// of value, and refuses the rest by name; also where Node may make no code from strings.

import { spawnSync } from "node:child_process";
import { type HostStorage, StorageError, Tensor } from "@open-infra/tensor";
import { seededRandom, testSeed } from "@open-infra/testing";
import { describe, expect, it } from "vitest";
import { DeviceError } from "../src/errors.ts";
import type { ParamLayout } from "../src/operation.ts";
import { HEADER_WORDS, type PackedValues, ParamBlock, pointerOf } from "../src/param-block.ts";

const seed = testSeed();

const integers = [0, 1, -1, 2 ** 31 - 1, 2 ** 31, -(2 ** 31), -(2 ** 31) - 1, 2 ** 32, 2 ** 53 - 1];

describe("ParamBlock", () => {
  it("writes each value at its place, as 64 bits", () => {
    const random = seededRandom(seed);
    const tensors = [
      Tensor.empty([8], "f32"),
      Tensor.empty([8, 4], "bf16").slice(0, 3, 5),
      Tensor.empty([6], "e2m1").slice(0, 2, 4),
      Tensor.empty([0], "i32"),
    ];
    for (let round = 0; round < 200; round++) {
      const layout: Record<string, "ptr" | "i64" | "f64"> = {};
      const values: Record<string, Tensor | number | null> = {};
      const want: bigint[] = [];
      const count = random.int(0, 65);
      for (let i = 0; i < count; i++) {
        const [name, kind] = [`p_${i}`, random.pick(["ptr", "i64", "f64"] as const)];
        layout[name] = kind;
        if (kind === "ptr") {
          const tensor = random.pick([...tensors, null]);
          values[name] = tensor;
          want.push(BigInt(tensor === null ? 0 : pointerOf("test", tensor)));
        } else if (kind === "i64") {
          const value = random.pick([...integers, -integers[8]!, random.int(0, 1e9) * 7919]);
          values[name] = value;
          want.push(BigInt(value));
        } else {
          const value = random.pick([0.5, -0, Number.NaN, Number.POSITIVE_INFINITY, -1e300]);
          values[name] = value;
          want.push(new BigInt64Array(Float64Array.of(value).buffer)[0] as bigint);
        }
      }
      const block = new ParamBlock();
      block.words.fill(123);
      block.packer("test", layout)("test", values);
      const got = new BigInt64Array(block.words.buffer, 8 * HEADER_WORDS, count);
      expect([...got], `seed ${seed} round ${round}`).toEqual(want);
    }
  });

  it("asks for an address once a storage, and never after it was disposed", () => {
    const layout = { x: "ptr" } as const;
    const block = new ParamBlock();
    const pack = block.packer("test", layout);
    expect(block.packer("test", layout)).toBe(pack);
    const x = Tensor.empty([4], "f32", "x");
    pack("test", { x });
    const first = new BigInt64Array(block.words.buffer)[HEADER_WORDS];
    expect(first).toBe(BigInt((x.storage as HostStorage).address));
    x[Symbol.dispose]();
    expect(() => pack("test", { x })).toThrow(StorageError);
    expect(() => pack("test", { x })).toThrow(/test: x f32\[4\] was used after/);
  });

  const layout: ParamLayout = { x: "ptr", n: "i64", a: "f64" };
  const good = { x: null, n: 1, a: 0.5 };
  it.each([
    ["a number for a tensor", { x: 7 }, /test: parameter x is 7; expected a tensor or null/],
    ["nothing for a tensor", { x: undefined }, /parameter x is undefined/],
    ["a fraction", { n: 1.5 }, /parameter n is 1\.5; expected an integer/],
    ["no number", { n: Number.NaN }, /parameter n is NaN; expected an integer/],
    ["an integer beyond 2^53", { n: 2 ** 53 }, /expected an integer/],
    ["a missing integer", { n: undefined }, /parameter n is undefined; expected a number/],
    ["a missing number", { a: undefined }, /parameter a is undefined; expected a number/],
  ])("refuses %s", (_label, wrong, message) => {
    const values = { ...good, ...wrong } as PackedValues;
    const pack = new ParamBlock().packer("test", layout);
    expect(() => pack("test", values)).toThrow(DeviceError);
    expect(() => pack("test", values)).toThrow(message);
  });

  it("refuses more parameters than the block has room for", () => {
    const many = Object.fromEntries(
      Array.from({ length: 65 }, (_, i) => [`p${i}`, "i64" as const]),
    );
    expect(() => new ParamBlock().packer("test", many)).toThrow(/at most 64 parameters.*has 65/);
  });

  it("packs where no code may be made from strings", () => {
    const module = new URL("../src/param-block.ts", import.meta.url).href;
    const program = `
      const { ParamBlock } = await import(${JSON.stringify(module)});
      const block = new ParamBlock();
      block.packer("t", { n: "i64", a: "f64", x: "ptr" })("t", { n: -(2 ** 40), a: 2.5, x: null });
      const [n, , x] = new BigInt64Array(block.words.buffer, ${8 * HEADER_WORDS}, 3);
      console.log(String(n), block.words[${HEADER_WORDS + 1}], String(x));`;
    const flags = ["--disallow-code-generation-from-strings", "--conditions=@open-infra/source"];
    const run = spawnSync(process.execPath, [...flags, "--input-type=module", "-e", program], {
      encoding: "utf8",
      cwd: new URL("..", import.meta.url),
    });
    expect(run.stderr).toBe("");
    expect(run.stdout.trim()).toBe(`${-(2 ** 40)} 2.5 0`);
  });
});
