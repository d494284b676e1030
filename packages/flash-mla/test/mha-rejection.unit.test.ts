// Bad arguments of attention over packed sequences: a typed error that names the argument, before
// anything runs (G12).

import { type Device, ReferenceDevice } from "@open-infra/jit";
import { InfraError, Tensor } from "@open-infra/tensor";
import { describe, expect, it } from "vitest";
import {
  flashAttnVarlenBackward,
  flashAttnVarlenFunc,
  flashAttnVarlenKvpackedBackward,
  flashAttnVarlenKvpackedFunc,
  flashAttnVarlenQkvpackedBackward,
  flashAttnVarlenQkvpackedFunc,
} from "../src/index.ts";

const i32 = (values: number[]): Tensor => Tensor.from(values, [values.length], "i32");
const bf16 = (...shape: number[]): Tensor => Tensor.empty(shape, "bf16");

/** A device on which nothing may run. */
class Untouchable extends ReferenceDevice {
  override run(): void {
    throw new Error("launched");
  }
}
const device: Device = new Untouchable();

const inputs = {
  q: bf16(3, 4, 24),
  k: bf16(5, 2, 24),
  v: bf16(5, 2, 16),
  cuSeqlensQ: i32([0, 3]),
  cuSeqlensK: i32([0, 5]),
};
const grads = { dOut: bf16(3, 4, 16), out: bf16(3, 4, 16), lse: Tensor.empty([3, 4], "f32") };

const shared: [string, object, RegExp][] = [
  ["a dtype of q", { q: Tensor.empty([3, 4, 24], "i32") }, /q has dtype i32/],
  ["a rank of q", { q: bf16(12, 24) }, /q is \[12,24\]; expected \[Tq, H, dqk\]/],
  ["q by columns", { q: bf16(3, 24, 4).transpose(1, 2) }, /q is strides .*; expected stride 1/],
  ["another dqk", { k: bf16(5, 2, 32) }, /k is .*dqk=24/],
  ["other tokens", { v: bf16(6, 2, 16) }, /v is .*Tkv=5/],
  ["other key heads", { v: bf16(5, 1, 16) }, /v is .*Hkv=2/],
  ["a dtype of v", { v: Tensor.empty([5, 2, 16], "f32") }, /v has dtype f32; expected bf16, as k/],
  ["heads", { q: bf16(3, 3, 24) }, /3 heads for 2 key heads/],
  ["no heads", { q: bf16(3, 0, 24) }, /0 heads for 2 key heads/],
  ["no channels", { v: bf16(5, 2, 0) }, /at least one channel/],
  ["too many channels", { v: bf16(5, 2, 1025) }, /v is \[5,2,1025\]; expected at most 1024 ch/],
  ["requests", { cuSeqlensK: i32([0, 5, 5]) }, /cuSeqlensK is \[3\]; expected \[2\]/],
  ["sums that fall", { cuSeqlensK: i32([0, 6, 5]) }, /cuSeqlensK\[2\] is 5; expected at least 6/],
  ["a last sum", { cuSeqlensQ: i32([0, 2]) }, /cuSeqlensQ\[1\] is 2; expected .*, 3/],
  ["sums by another dtype", { cuSeqlensQ: Tensor.empty([2], "f32") }, /cuSeqlensQ has dtype f32/],
  ["maxSeqlenQ", { maxSeqlenQ: 2 }, /maxSeqlenQ is 2; expected an integer of at least 3/],
  ["maxSeqlenK", { maxSeqlenK: 5.5 }, /maxSeqlenK is 5.5; expected an integer of at least 5/],
  ["dropout", { dropoutP: 0.1 }, /dropoutP is 0.1; expected 0/],
  ["an infinite scale", { softmaxScale: 1 / 0 }, /softmaxScale is Infinity/],
  ["probabilities", { probabilities: "f16" }, /probabilities is f16; expected 'f32' or 'bf16'/],
  ["an output", { out: bf16(3, 4, 24) }, /out is .*dv=16/],
  ["an lse", { lse: Tensor.empty([4, 3], "f32") }, /lse is \[4,3\]/],
  ["an lse's dtype", { lse: bf16(3, 4) }, /lse has dtype bf16/],
];

describe("flashAttnVarlenFunc rejects", () => {
  it.each(shared)("%s", (_name, change, message) => {
    const call = (): unknown => flashAttnVarlenFunc(device, { ...inputs, ...change });
    expect(call).toThrow(InfraError);
    expect(call).toThrow(message);
    expect(call).toThrow(/^flashAttnVarlenFunc: /);
  });
});

describe("flashAttnVarlenBackward rejects", () => {
  it.each([
    ...shared,
    ["a gradient's shape", { dOut: bf16(3, 4, 24) }, /dOut is .*dv=16/],
    ["a gradient's dtype", { dOut: Tensor.empty([3, 4, 16], "u8") }, /dOut has dtype u8/],
    ["dLse", { dLse: Tensor.empty([3], "f32") }, /dLse is \[3\]/],
    ["dq", { dq: bf16(3, 2, 24) }, /dq is .*H=4/],
    ["dk", { dk: bf16(5, 4, 24) }, /dk is .*Hkv=2/],
    ["dv", { dv: bf16(5, 16, 2).transpose(1, 2) }, /dv is strides/],
  ] as [string, object, RegExp][])("%s", (_name, change, message) => {
    const call = (): unknown => flashAttnVarlenBackward(device, { ...inputs, ...grads, ...change });
    expect(call).toThrow(InfraError);
    expect(call).toThrow(message);
    expect(call).toThrow(/^flashAttnVarlenBackward: /);
  });
});

describe("packed functions reject", () => {
  const qkv = { qkv: bf16(3, 4, 64), cuSeqlens: i32([0, 3]), headDimQk: 24 };
  const kv = { kv: bf16(5, 2, 40), headDimQk: 24, ...inputs };
  it.each([
    ["a rank", { qkv: bf16(3, 256) }, /qkv is \[3,256\]/],
    ["no value", { headDimQk: 32 }, /headDimQk is 32; expected an integer in 1..31, qkv having 64/],
    ["a fraction", { headDimQk: 1.5 }, /headDimQk is 1.5/],
    ["the longest", { maxSeqlen: 1 }, /maxSeqlenQ is 1/],
  ])("qkv: %s", (_name, change, message) => {
    expect(() => flashAttnVarlenQkvpackedFunc(device, { ...qkv, ...change })).toThrow(message);
    const options = { ...qkv, ...grads, ...change };
    expect(() => flashAttnVarlenQkvpackedBackward(device, options)).toThrow(message);
  });
  it.each([
    ["no value", { headDimQk: 40 }, /headDimQk is 40; expected an integer in 1..39, kv having 40/],
    ["another dqk", { headDimQk: 23 }, /k is .*dqk=24/],
  ])("kv: %s", (_name, change, message) => {
    expect(() => flashAttnVarlenKvpackedFunc(device, { ...kv, ...change })).toThrow(message);
    const options = { ...kv, ...grads, ...change };
    expect(() => flashAttnVarlenKvpackedBackward(device, options)).toThrow(message);
  });
  it("gradients in another shape", () => {
    const dQkv = { ...qkv, ...grads, dQkv: bf16(3, 4, 63) };
    expect(() => flashAttnVarlenQkvpackedBackward(device, dQkv)).toThrow(/dQkv is \[3,4,63\]/);
    const dKv = { ...kv, ...grads, dKv: bf16(5, 2, 41) };
    expect(() => flashAttnVarlenKvpackedBackward(device, dKv)).toThrow(/dKv is \[5,2,41\]/);
  });
});
