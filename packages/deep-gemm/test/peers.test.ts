// The bench beside other libraries, without them: everyone multiplies the same numbers, and a peer
// that is not there is a line that says how to get it, not a failure.

import { Tensor } from "@open-infra/tensor";
import { describe, expect, it } from "vitest";
import { matMulModel } from "../bench/peers/onnx-model.ts";
import type { PeerAdapter } from "../bench/peers/peer.ts";
import { checkedValues, fillPattern } from "../bench/peers/problem.ts";
import { PeerProcess } from "../bench/peers/process.ts";

describe("peers", () => {
  it("hold the same numbers in either type, whose bytes are also good e4m3", () => {
    const count = (1 << 20) + 5; // Beyond the pattern's period.
    const narrow = new Uint16Array(count);
    const wide = new Float32Array(count);
    fillPattern(narrow, 2);
    fillPattern(wide, 2);
    const tensor = Tensor.empty([count], "bf16");
    (tensor.raw() as Uint16Array).set(narrow);
    expect(tensor.toFloat32()).toEqual(wide);
    expect(wide.every((x) => Math.abs(x) >= 0.5 && Math.abs(x) < 1)).toBe(true);
    expect(wide.some((x) => x < 0) && wide.some((x) => x > 0)).toBe(true);
    expect(new Uint8Array(narrow.buffer).every((byte) => (byte & 0x7f) !== 0x7f)).toBe(true);
    const problem = { dtype: "bf16", m: 3, n: 2, k: 1, copies: 1 } as const;
    expect(checkedValues(narrow, problem)).toEqual([wide[0], wide[1], wide[4], wide[5]]);
  });

  it("are a line where they are missing", async () => {
    const nothing: PeerAdapter = {
      name: "nothing-of-this-name",
      dtypes: ["f32"],
      install: "apt-get install nothing",
      open: () => Promise.reject(new Error("never asked: the process looks the name up")),
    };
    using peer = await PeerProcess.start(nothing, 1);
    expect(peer.installed).toBe(false);
    expect(peer.label).toBe("no nothing-of-this-name: apt-get install nothing");
    const problem = { dtype: "f32", m: 1, n: 1, k: 1, copies: 1 } as const;
    expect(await peer.prepare(problem)).toMatch(/ended/);
  });

  it("get a model of one product", () => {
    const model = Buffer.from(matMulModel(Float32Array.of(1.5, -2), 1, 2));
    expect([...model.subarray(0, 2)]).toEqual([0x08, 8]); // IR version 8
    expect(model.includes("Gemm") && model.includes("transB")).toBe(true);
    expect(model.includes(Buffer.from(Float32Array.of(1.5, -2).buffer))).toBe(true);
  });
});
