// A context's defaults reach the calls they are for and no others, a call's own options go first,
// and contexts side by side do not touch each other.

import { createDevice, type Device, type Operation } from "@open-infra/jit";
import { Tensor } from "@open-infra/tensor";
import { seededRandom, testSeed } from "@open-infra/testing";
import { describe, expect, it } from "vitest";
import * as gemm from "../src/index.ts";
import { createDeepGemm, type GemmCall, SPLIT_K } from "../src/index.ts";
import { randomTensor } from "./helpers.ts";

/** A device that keeps what it is asked to run, and runs it on the reference. */
function recording(): { readonly device: Device; readonly calls: Record<string, unknown>[] } {
  const reference = createDevice({ backend: "reference" });
  const calls: Record<string, unknown>[] = [];
  const run = <A>(operation: Operation<A>, args: A): void => {
    calls.push(args as Record<string, unknown>);
    reference.run(operation, args);
  };
  const device: Device = {
    backend: "cpu",
    description: "records",
    threads: 8,
    run,
    supports: () => true,
    warmup: async () => {},
    [Symbol.dispose]: () => {},
  };
  return { device, calls };
}

const random = seededRandom(testSeed());
const [m, n, k] = [5, 8, 1100];
const a = randomTensor(random, [m, k], "bf16");
const b = randomTensor(random, [n, k], "bf16");
const d = (): Tensor => Tensor.empty([m, n], "f32");
const last = (calls: Record<string, unknown>[]): GemmCall => calls.at(-1) as unknown as GemmCall;

describe("createDeepGemm", () => {
  it("has every function of the package that runs on a device", () => {
    const context = createDeepGemm(createDevice({ backend: "reference" })) as object;
    const pure = [
      ...["align", "ceilDiv", "ceilToUe8m0", "fp4CodeOf", "gemmOperation", "isScaled", "packFp4"],
      ...["packUe8m0ToInt", "scaleBlocks", "supports", "unpackFp4", "unpackUe8m0FromInt"],
      ...[
        "transposePackedFp4",
        "transformSfIntoRequiredLayout",
        "transformWeightsForMegaMoe",
        "createDeepGemm",
        "ArgumentError",
      ],
    ];
    const missing = Object.entries(gemm)
      .filter(([, value]) => typeof value === "function")
      .map(([name]) => name)
      .filter((name) => !pure.includes(name) && !name.startsWith("get") && !(name in context));
    expect(missing).toEqual([]);
  });

  it("gives threads, alignment and padding to the calls that take them", () => {
    const { device, calls } = recording();
    const context = createDeepGemm(device, { numSms: 3, mkAlignment: 2, ensureZeroPadding: false });
    context.bf16GemmNt({ a, b, d: d() });
    expect(last(calls).threads).toBe(3);
    context.bf16GemmNt({ a, b, d: d(), threads: 1 });
    expect(last(calls).threads).toBe(1);
    context.bf16GemmNt({ a, b, d: d(), threads: undefined });
    expect(last(calls).threads).toBe(3);
    const groupedLayout = Tensor.from([1, 4], [2], "i32");
    const experts = randomTensor(random, [2, n, k], "bf16");
    const grouped = { a, b: experts, d: d(), groupedLayout, usePsumLayout: true };
    context.mGroupedBf16GemmNtContiguous(grouped);
    expect(last(calls)).toMatchObject({ threads: 3, alignment: 2, zeroPadding: false });
    context.mGroupedBf16GemmNtContiguous({ ...grouped, alignment: 1, ensureZeroPadding: true });
    expect(last(calls)).toMatchObject({ alignment: 1, zeroPadding: true });
    context.einsum("bhr,hdr->bhd", {
      a: a.reshape([m, 1, k]),
      b: b.reshape([1, n, k]),
      d: Tensor.empty([m, 1, n], "f32"),
    });
    expect(last(calls).threads).toBe(3);
    context.perTokenCastToFp8({ x: a });
    expect(calls.at(-1)).not.toHaveProperty("threads");
  });

  it("cuts K of dense products where it says so", () => {
    const { device, calls } = recording();
    const context = createDeepGemm(device, { splitK: true });
    const [cut, whole] = [d(), d()];
    context.bf16GemmNt({ a, b, d: cut });
    expect(calls.length).toBe(2);
    expect((calls[0] as unknown as GemmCall).d.shape).toEqual([Math.ceil(k / SPLIT_K), m, n]);
    context.bf16GemmNt({ a, b, d: whole, splitK: false });
    expect(calls.length).toBe(3);
  });

  it("changes nothing but a new one", () => {
    const { device, calls } = recording();
    const one = createDeepGemm(device, { numSms: 2 });
    const other = one.with({ numSms: 5, mkAlignment: 16 });
    one.gemmNt({ a, b, d: d() });
    one.bf16GemmNt({ a, b, d: d() });
    expect(last(calls).threads).toBe(2);
    other.bf16GemmNt({ a, b, d: d() });
    expect(last(calls).threads).toBe(5);
    expect([one.getNumSms(), other.getNumSms(), one.with({ numSms: 99 }).getNumSms()]).toEqual([
      2, 5, 8,
    ]);
    expect(one.getMkAlignmentForContiguousLayout()).toBe(128);
    expect(other.getMkAlignmentForContiguousLayout()).toBe(16);
    expect(one.getTheoreticalMkAlignmentForContiguousLayout()).toBe(1);
  });

  it("refuses settings that mean nothing, by name", () => {
    const { device } = recording();
    expect(() => createDeepGemm(device, { numSms: 0 })).toThrow(/numSms is 0.*positive integer/);
    expect(() => createDeepGemm(device, { mkAlignment: 1.5 })).toThrow(/mkAlignment is 1\.5/);
  });
});
