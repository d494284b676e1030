// A rank of the low-latency mode's tests: runs cases, checks rows to the bit and sums by distance.

import assert from "node:assert/strict";
import {
  Buffer,
  type LowLatencyDispatchResult,
  packUe8m0,
  perTokenCastBack,
  perTokenCastToFp8,
} from "@open-infra/deep-ep";
import type { Group } from "@open-infra/ranks";
import { bf16FromNumber, bf16ToNumber, Tensor } from "@open-infra/tensor";
import {
  identitySum,
  type LowLatencyCase,
  type LowLatencyInput,
  makeLowLatencyInput,
  shiftedDiff,
  tokensFor,
  toNumbers,
} from "./low-latency-case.ts";

/** One case on one rank. */
export class LowLatencyChecker {
  readonly group: Group;
  readonly buffer: Buffer;
  readonly case: LowLatencyCase;
  readonly inputs: LowLatencyInput[];
  readonly input: LowLatencyInput;
  readonly what: string;

  constructor(group: Group, buffer: Buffer, c: LowLatencyCase) {
    this.group = group;
    this.buffer = buffer;
    this.case = c;
    this.inputs = Array.from({ length: group.size }, (_, r) => makeLowLatencyInput(c, r));
    this.input = this.inputs[group.rank] as LowLatencyInput;
    this.what = `rank ${group.rank} of ${group.size}, ${JSON.stringify(c)}`;
  }

  get local(): number {
    return this.case.numExperts / this.group.size;
  }

  dispatch(): LowLatencyDispatchResult {
    const c = this.case;
    const stats = Tensor.from(new Array(this.local).fill(5), [this.local], "i32");
    const waited = Tensor.empty([this.group.size], "i64");
    const result = this.buffer.lowLatencyDispatch(this.input.x, {
      topkIdx: this.input.topkIdx,
      numMaxDispatchTokensPerRank: c.most,
      numExperts: c.numExperts,
      useFp8: c.useFp8,
      roundScale: c.roundScale,
      useUe8m0: c.useUe8m0,
      cumulativeLocalExpertRecvStats: stats,
      dispatchWaitRecvCostStats: waited,
      asyncFinish: c.async,
      returnRecvHook: c.hook,
    });
    if (c.hook) result.hook();
    else if (c.async) result.event.currentStreamWait();
    result.recvCount.raw().forEach((n, e) => {
      assert.equal(stats.raw()[e], n + 5, this.what);
    });
    assert.ok(
      waited.raw().every((ns) => ns >= 0n),
      this.what,
    );
    return result;
  }

  /** Rows, scales, tokens and ranges of every expert; `gone` ranks sent nothing. */
  checkReceived(result: LowLatencyDispatchResult, gone: readonly number[] = []): void {
    const { rank, size } = this.group;
    const ranges = result.handle.layoutRange.raw();
    for (let e = 0; e < this.local; e++) {
      const taken = new Set<number>();
      for (let source = 0; source < size; source++) {
        const input = this.inputs[source] as LowLatencyInput;
        const tokens = gone.includes(source) ? [] : tokensFor(input, rank * this.local + e);
        const range = ranges[e * size + source] as bigint;
        const first = Number(range >> 32n);
        const where = `expert ${e} from ${source}, ${this.what}`;
        assert.equal(Number(range & 0xffffffffn), tokens.length, where);
        tokens.forEach((token, i) => {
          taken.add(first + i);
          const info = result.handle.srcInfo.select(0, e).raw()[first + i];
          assert.equal(info, token, where);
          this.#checkRow(result, e, first + i, input.x.slice(0, token, token + 1), where);
        });
      }
      const want = Array.from({ length: result.recvCount.raw()[e] as number }, (_, i) => i);
      assert.deepEqual(
        [...taken].sort((a, b) => a - b),
        want,
        this.what,
      );
    }
  }

  #checkRow(
    result: LowLatencyDispatchResult,
    e: number,
    row: number,
    x: Tensor<"bf16">,
    where: string,
  ): void {
    const { recvX } = result;
    const at = (t: Tensor): Tensor =>
      t
        .select(0, e)
        .slice(0, row, row + 1)
        .contiguous();
    const same = (got: Tensor, want: Tensor): void =>
      assert.ok(globalThis.Buffer.from(got.bytes()).equals(want.bytes()), where);
    if (recvX instanceof Tensor) {
      same(at(recvX), x);
      return;
    }
    const { codes, scales } = perTokenCastToFp8(x, { roundScale: this.case.roundScale });
    same(at(recvX[0]), codes);
    same(at(recvX[1]), this.case.useUe8m0 ? packUe8m0(scales) : scales);
  }

  /** Identity experts: rows go back as they came, or as they were cast. */
  experts(result: LowLatencyDispatchResult): Tensor<"bf16"> {
    const { most, hidden, zeroCopy } = this.case;
    const rows = this.group.size * most;
    const y = zeroCopy
      ? this.buffer.getNextLowLatencyCombineBuffer(result.handle)
      : Tensor.empty([this.local, rows, hidden], "bf16");
    y.raw().fill(0x7fc1); // NaN in rows that nobody may read
    const ranges = result.handle.layoutRange.raw();
    for (let e = 0; e < this.local; e++) {
      this.inputs.forEach((input, source) => {
        const range = ranges[e * this.group.size + source] as bigint;
        if ((range & 0xffffffffn) === 0n) return;
        tokensFor(input, this.group.rank * this.local + e).forEach((token, i) => {
          const row = e * rows + Number(range >> 32n) + i;
          y.raw().set(this.#asReceived(input, token), row * hidden);
        });
      });
    }
    return y;
  }

  #asReceived(input: LowLatencyInput, token: number): Uint16Array {
    const x = input.x.slice(0, token, token + 1);
    if (!this.case.useFp8) return x.raw();
    const { codes, scales } = perTokenCastToFp8(x, { roundScale: this.case.roundScale });
    return Uint16Array.from(perTokenCastBack(codes, scales), bf16FromNumber);
  }

  combine(result: LowLatencyDispatchResult, gone: readonly number[] = []): Tensor<"bf16"> {
    const c = this.case;
    const y = this.experts(result);
    const out = c.seed % 2 ? Tensor.empty(this.input.x.shape, "bf16") : undefined;
    const combined = this.buffer.lowLatencyCombine(y, {
      topkIdx: this.input.topkIdx,
      topkWeights: this.input.topkWeights,
      handle: result.handle,
      useLogfmt: c.useLogfmt,
      zeroCopy: c.zeroCopy,
      asyncFinish: c.async,
      returnRecvHook: c.hook,
      ...(out && { out }),
    });
    if (c.hook) {
      if (!c.zeroCopy) y.raw().fill(0x7fc1); // it has been sent
      combined.hook();
    } else if (c.async) combined.event.currentStreamWait();
    if (out !== undefined) assert.equal(combined.combinedX, out);
    const got = toNumbers(combined.combinedX);
    const alive = (e: number): boolean => !gone.includes(Math.floor(e / this.local));
    const want = identitySum(c, this.input, toNumbers(this.input.x), alive);
    // The originals' bounds hold on average: a few elements may round alike.
    if (got.length >= 256) {
      const bound = c.useFp8 ? 9e-4 : c.useLogfmt ? 1e-4 : 1e-5;
      const diff = shiftedDiff(got, want);
      assert.ok(diff < bound, `distance ${diff}, ${this.what}`);
    }
    // Each element against the sum of what experts were given, which was held to the bit before:
    // the codes' own error is not in it, so the limit is that of one rounding.
    const given = toNumbers(this.input.x);
    for (let token = 0; token * c.hidden < given.length; token++) {
      const row = Float64Array.from(this.#asReceived(this.input, token), bf16ToNumber);
      given.set(row, token * c.hidden);
    }
    const sums = identitySum(c, this.input, given, alive);
    const relative = c.useLogfmt ? 2 ** -5 : 2 ** -8;
    got.forEach((value, i) => {
      const exact = sums[i] as number;
      const error = Math.abs(value - exact);
      const limit = relative * Math.abs(exact) + (c.useLogfmt ? 0.02 : 1e-30);
      assert.ok(error <= limit, `${value} is not ${exact}, element ${i}, ${this.what}`);
    });
    return combined.combinedX;
  }
}

/** Runs cases one after the other, with a clean window between shapes. */
export default async function run(
  group: Group,
  { cases }: { readonly cases: readonly LowLatencyCase[] },
): Promise<number> {
  const hints = cases.map((c) =>
    Buffer.getLowLatencyRdmaSizeHint({
      numMaxDispatchTokensPerRank: c.most,
      hidden: c.hidden,
      numRanks: group.size,
      numExperts: c.numExperts,
    }),
  );
  const buffer = await Buffer.create(group, {
    numNvlBytes: 1 << 20,
    lowLatencyMode: true,
    numRdmaBytes: Math.max(...hints),
  });
  for (const c of cases) {
    const { most: numMaxDispatchTokensPerRank, hidden, numExperts } = c;
    buffer.cleanLowLatencyBuffer({ numMaxDispatchTokensPerRank, hidden, numExperts });
    const checker = new LowLatencyChecker(group, buffer, c);
    let first: Tensor | undefined;
    // Three rounds, so that both turns are used again.
    for (let round = 0; round < 3; round++) {
      const result = checker.dispatch();
      checker.checkReceived(result);
      const combined = checker.combine(result);
      first ??= combined.clone();
      assert.deepEqual(combined.raw(), first.raw(), `round ${round}, ${checker.what}`);
    }
  }
  buffer.destroy();
  return cases.length;
}
