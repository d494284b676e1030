// A rank of the normal mode's tests: runs cases and checks everything that comes out, to the bit.

import assert from "node:assert/strict";
import {
  Buffer,
  type DispatchInput,
  type DispatchOptions,
  type DispatchResult,
  dispatchLayout,
} from "@open-infra/deep-ep";
import type { Group } from "@open-infra/ranks";
import { Tensor } from "@open-infra/tensor";
import {
  combinedBits,
  expertBits,
  makeInput,
  type NormalCase,
  type RankInput,
  ranksOf,
  receivedBy,
} from "./normal-case.ts";

type Ints = ArrayLike<number | bigint>;
const same = (what: string, got: Ints | undefined, want: Ints): void => {
  assert.deepEqual(Array.from(got ?? [], Number), Array.from(want, Number), what);
};

class Checker {
  readonly #group: Group;
  readonly #buffer: Buffer;
  readonly #case: NormalCase;
  readonly #inputs: RankInput[];
  readonly #input: RankInput;
  readonly #what: string;

  constructor(group: Group, buffer: Buffer, c: NormalCase) {
    this.#group = group;
    this.#buffer = buffer;
    this.#case = c;
    const { size, rank, ranksPerNode } = group;
    this.#inputs = Array.from({ length: size }, (_, r) => makeInput(c, r, size, ranksPerNode));
    this.#input = this.#inputs[rank] as RankInput;
    this.#what = `rank ${rank} of ${size} (${ranksPerNode} a node), ${JSON.stringify(c)}`;
  }

  run(): void {
    const { x, scales, topkIdx, topkWeights } = this.#input;
    const c = this.#case;
    const layout = this.#layout();
    const input: DispatchInput = scales === undefined ? x : [x as Tensor<"e4m3fn">, scales];
    const worstRows = c.tokens.reduce((a, b) => a + b, 0) + 1;
    const options: DispatchOptions = {
      ...layout,
      ...(c.withTopk && { topkIdx, topkWeights }),
      ...(c.worst && { numWorstTokens: worstRows }),
      expertAlignment: c.alignment,
      ...this.#calling(),
    };
    const result = this.#buffer.dispatch(input, options);
    if (c.async) result.event.currentStreamWait();
    this.#checkReceived(result, c.worst ? worstRows : undefined);
    if (c.cached) this.#checkCached(input, result);
    this.#checkCombine(result);
    result[Symbol.dispose]();
  }

  #calling() {
    const { previous, async: asyncFinish } = this.#case;
    return {
      ...(previous && { previousEvent: Buffer.capture() }),
      asyncFinish,
      allocateOnCommStream: previous && asyncFinish,
    };
  }

  #layout() {
    const { size, ranksPerNode } = this.#group;
    const { numExperts } = this.#case;
    const { topkIdx } = this.#input;
    const calling = this.#calling();
    const { event, ...layout } = this.#buffer.getDispatchLayout(topkIdx, numExperts, calling);
    event.currentStreamWait();
    const want = dispatchLayout(topkIdx, { numExperts, numRanks: size, ranksPerNode });
    for (const name of ["numTokensPerRank", "numTokensPerExpert", "isTokenInRank"] as const) {
      same(`${name}, ${this.#what}`, layout[name].raw(), want[name].raw());
    }
    const nodes = want.numTokensPerRdmaRank?.raw() ?? [];
    same(`nodes, ${this.#what}`, layout.numTokensPerRdmaRank?.raw(), nodes);
    return layout;
  }

  #checkReceived(result: DispatchResult, worstRows: number | undefined): void {
    const c = this.#case;
    const { rank, size } = this.#group;
    const rows = receivedBy(rank, this.#inputs, c.numExperts);
    const [x, scales] = result.recvX instanceof Tensor ? [result.recvX] : result.recvX;
    assert.equal(x.dim(0), worstRows ?? rows.length, this.#what);
    assert.equal(result.handle.numRecvTokens, rows.length, this.#what);
    const sources = result.handle.recvSrcIdx.raw().subarray(0, rows.length);
    same(
      `sources, ${this.#what}`,
      sources,
      rows.map(({ token }) => token),
    );
    rows.forEach(({ source, token }, row) => {
      const from = this.#inputs[source] as RankInput;
      const part = (tensor: Tensor, i: number): Uint8Array =>
        tensor
          .slice(0, i, i + 1)
          .contiguous()
          .bytes();
      const where = `row ${row} from ${source}:${token}, ${this.#what}`;
      assert.ok(globalThis.Buffer.from(part(x, row)).equals(part(from.x, token)), where);
      if (scales !== undefined && from.scales !== undefined) {
        assert.ok(
          globalThis.Buffer.from(part(scales, row)).equals(part(from.scales, token)),
          where,
        );
      }
    });
    if (c.withTopk) this.#checkSelections(result, rows, x.dim(0));
    const counts = new Array<number>(c.numExperts / size).fill(0);
    for (const { topk } of this.#inputs) {
      for (const e of topk.flat()) {
        const local = e - (rank * c.numExperts) / size;
        if (e >= 0 && counts[local] !== undefined) counts[local]++;
      }
    }
    const aligned = counts.map((n) => Math.ceil(n / c.alignment) * c.alignment);
    same(this.#what, result.numRecvTokensPerExpertList, worstRows === undefined ? aligned : []);
  }

  #checkSelections(
    result: DispatchResult,
    rows: readonly { source: number; token: number }[],
    allRows: number,
  ): void {
    const { topk: k, numExperts } = this.#case;
    const local = numExperts / this.#group.size;
    const choice = new Array<number>(allRows * k).fill(-1);
    const weights = new Array<number>(allRows * k).fill(0);
    rows.forEach(({ source, token }, row) => {
      const from = this.#inputs[source] as RankInput;
      from.topk[token]?.forEach((e, i) => {
        if (e < 0 || Math.floor(e / local) !== this.#group.rank) return;
        choice[row * k + i] = e % local;
        weights[row * k + i] = from.topkWeights.raw()[token * k + i] as number;
      });
    });
    same(`topk, ${this.#what}`, result.recvTopkIdx?.raw(), choice);
    same(`weights, ${this.#what}`, result.recvTopkWeights?.raw(), weights);
  }

  #checkCached(input: DispatchInput, fresh: DispatchResult): void {
    const again = this.#buffer.dispatch(input, { handle: fresh.handle });
    assert.equal(again.recvTopkIdx, undefined);
    const real = fresh.handle.numRecvTokens;
    const bytes = (of: DispatchInput): Uint8Array[] =>
      (of instanceof Tensor ? [of] : of).map((t) => t.slice(0, 0, real).bytes());
    bytes(again.recvX).forEach((b, i) => {
      const want = bytes(fresh.recvX)[i] as Uint8Array;
      assert.ok(globalThis.Buffer.from(b).equals(want), `cached, ${this.#what}`);
    });
    again[Symbol.dispose]();
  }

  #checkCombine(result: DispatchResult): void {
    const c = this.#case;
    const { rank, size, ranksPerNode } = this.#group;
    const { handle } = result;
    const { hidden } = c;
    // Memory of the buffer and of its own take turns.
    const shape = [handle.numRecvRows, hidden];
    const y = c.seed % 2 ? this.#buffer.empty(shape, "bf16") : Tensor.empty(shape, "bf16");
    const bits = y.raw();
    bits.fill(0x7fc1); // NaN in rows that nobody may read
    receivedBy(rank, this.#inputs, c.numExperts).forEach(({ source, token }, row) => {
      for (let i = 0; i < hidden; i++) bits[row * hidden + i] = expertBits(rank, source, token, i);
    });
    const tokens = c.tokens[rank] as number;
    const biases = Array.from({ length: c.biases }, (_, b) => {
      const bias = Tensor.empty([tokens, hidden], "bf16");
      for (let i = 0; i < bias.size; i++) bias.raw()[i] = expertBits(99 + b, rank, 7, i);
      return bias;
    });
    const combined = this.#buffer.combine(y, {
      handle,
      ...(result.recvTopkWeights && { topkWeights: result.recvTopkWeights }),
      bias: biases,
      ...this.#calling(),
    });
    combined.event.currentStreamWait();
    const want = new Uint16Array(tokens * hidden);
    this.#input.topk.forEach((choice, token) => {
      const ranks = ranksOf(choice, c.numExperts, size);
      for (let i = 0; i < hidden; i++) {
        const added = biases.map((bias) => bias.raw()[token * hidden + i] as number);
        want[token * hidden + i] = combinedBits(added, ranks, rank, ranksPerNode, (to) =>
          expertBits(to, rank, token, i),
        );
      }
    });
    same(`combine, ${this.#what}`, combined.combinedX.raw(), want);
    if (c.withTopk) {
      const selected = this.#input.topk.flat().map((e, i) => (e < 0 ? 0 : this.#weight(i)));
      same(`weights back, ${this.#what}`, combined.combinedTopkWeights?.raw(), selected);
    }
    combined[Symbol.dispose]();
    if (c.seed % 2) y[Symbol.dispose]();
  }

  #weight(i: number): number {
    return this.#input.topkWeights.raw()[i] as number;
  }
}

/** Runs cases; gives how much memory is still in use, which must be none. */
export default async function run(
  group: Group,
  data: { readonly cases: readonly NormalCase[]; readonly numNvlBytes?: number },
): Promise<{ readonly leaked: number; readonly cases: number }> {
  const { numNvlBytes = 64 << 20 } = data;
  const buffer = await Buffer.create(group, { numNvlBytes });
  for (const c of data.cases) new Checker(group, buffer, c).run();
  const leaked = buffer.usedBytes;
  buffer.destroy();
  return { leaked, cases: data.cases.length };
}
