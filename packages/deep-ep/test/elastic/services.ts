// The services beside dispatch on one rank: all-gather sessions, pipeline, embeddings, barrier.
// Every rank draws the same random operations from a seed.

import { BufferStateError, ElasticBuffer } from "@open-infra/deep-ep";
import { InputError } from "@open-infra/errors";
import type { Group } from "@open-infra/ranks";
import { Tensor } from "@open-infra/tensor";
import { type Random, seededRandom } from "@open-infra/testing";
import { expectEqual } from "./check.ts";

/** What a rank is given; plain data. */
export interface ServiceData {
  readonly seed: number;
  readonly operations: number;
}

const megabytes = 2 ** 20;

export default async function services(group: Group, data: ServiceData): Promise<number> {
  const buffer = await ElasticBuffer.create(group, {
    numBytes: 8 * megabytes,
    numCpuBytes: 2 * megabytes,
  });
  gatherSessions(buffer, data);
  pipeline(buffer, data);
  engram(buffer, data);
  engramScales(buffer, data);
  barriers(buffer);
  refusals(buffer);
  buffer.destroy();
  return buffer.rankIdx;
}

/** What rank `rank` gives to gather `number`: bytes by position. */
function partOf(rank: number, number: number, elements: number): Uint8Array {
  return Uint8Array.from({ length: elements }, (_, i) => (rank * 67 + number * 31 + i * 7) & 255);
}

function gatherSessions(buffer: ElasticBuffer, { seed, operations }: ServiceData): void {
  const random = seededRandom(seed);
  const maxElements = 800;
  const perSession = 6;
  const bytes = perSession * 3 * (maxElements * buffer.numRanks + 32);
  buffer.agrsSetConfig(bytes, perSession);
  let number = 0;
  while (number < operations) {
    using _session = buffer.agrsNewSession();
    const pending: (() => void)[] = [];
    const count = random.int(1, perSession + 1);
    for (let i = 0; i < count; i++) {
      pending.push(oneGather(buffer, random, number++, maxElements, `seed ${seed}`));
      if (random.next() < 0.5) pending.pop()?.();
    }
    for (const check of pending) check();
  }
}

/** Begins a gather; the result waits for it and checks it. */
function oneGather(
  buffer: ElasticBuffer,
  random: Random,
  number: number,
  maxElements: number,
  label: string,
): () => void {
  const shapes = Array.from({ length: random.int(1, 4) }, () => [random.int(0, maxElements)]);
  const inplace = random.next() < 0.5;
  const tensors = inplace
    ? buffer.agrsGetInplaceTensor(shapes, "u8")
    : shapes.map((shape) => Tensor.empty(shape, "u8"));
  tensors.forEach((tensor, i) => {
    tensor.bytes().set(partOf(buffer.rankIdx, number + i, tensor.size));
  });
  const { gathered, wait } = buffer.allGather(
    tensors.length === 1 ? (tensors[0] as Tensor) : tensors,
  );
  return () => {
    wait();
    gathered.forEach((all, i) => {
      for (let rank = 0; rank < buffer.numRanks; rank++) {
        const want = partOf(rank, number + i, shapes[i]?.[0] as number);
        expectEqual(`${label}: gather ${number}, rank ${rank}`, all.select(0, rank).bytes(), want);
      }
    });
  };
}

/** Random sends to a neighbour, at most four on their way, each checked by its receiver. */
function pipeline(buffer: ElasticBuffer, { seed, operations }: ServiceData): void {
  const random = seededRandom(seed + 1);
  const { rankIdx, numRanks } = buffer;
  const inflight = 4;
  buffer.ppSetConfig(4096, inflight);
  for (let number = 0; number < operations; ) {
    const burst = random.int(1, inflight + 1);
    const forward = random.next() < 0.5;
    const sizes = Array.from({ length: burst }, () => random.int(0, 4097));
    const step = forward ? 1 : numRanks - 1;
    const to = (rankIdx + step) % numRanks;
    const from = (rankIdx + numRanks - step) % numRanks;
    const asyncWithComputeStream = random.next() < 0.5;
    sizes.forEach((size, i) => {
      const t = Tensor.empty([size], "u8");
      t.bytes().set(partOf(rankIdx, number + i, size));
      buffer.ppSend(t, to, { asyncWithComputeStream });
    });
    sizes.forEach((size, i) => {
      const t = Tensor.empty([size], "u8");
      buffer.ppRecv(t, from);
      expectEqual(
        `seed ${seed + 1}: tensor ${number + i}`,
        t.bytes(),
        partOf(from, number + i, size),
      );
    });
    number += burst;
  }
}

const entryOf = (entry: number, column: number): number => (entry * 37 + column * 11) & 0x3fff;

function engram(buffer: ElasticBuffer, { seed }: ServiceData): void {
  const random = seededRandom(seed + 2 + buffer.rankIdx);
  for (const [entries, hidden] of [
    [300, 128],
    [17, 33],
  ] as const) {
    const storage = Tensor.empty([entries, hidden], "bf16");
    for (let i = 0; i < storage.size; i++) {
      const entry = buffer.rankIdx * entries + Math.floor(i / hidden);
      storage.raw()[i] = entryOf(entry, i % hidden);
    }
    buffer.engramWrite(storage);
    const perToken = 3;
    for (let round = 0; round < 4; round++) {
      const tokens = round === 0 ? 0 : random.int(1, 60);
      const list = Array.from({ length: tokens * perToken }, () =>
        random.int(0, entries * buffer.numRanks),
      );
      const hook = buffer.engramFetch(Tensor.from(list, [tokens, perToken], "i32"));
      const { data } = hook();
      const want = list.flatMap((entry) =>
        Array.from({ length: hidden }, (_, column) => entryOf(entry, column)),
      );
      expectEqual(`fetch of ${entries} × ${hidden}`, (data as Tensor<"bf16">).raw(), want);
      data.bytes().fill(0xa5);
      data[Symbol.dispose]();
    }
  }
}

function engramScales(buffer: ElasticBuffer, { seed }: ServiceData): void {
  const random = seededRandom(seed + 3 + buffer.rankIdx);
  const entries = 20;
  const all = entries * buffer.numRanks;
  const storage = Tensor.empty([entries, 64], "e4m3fn");
  storage.bytes().forEach((_, i) => {
    storage.bytes()[i] = (buffer.rankIdx * 16 + i) & 0x7e;
  });
  const sf = Tensor.from(
    Array.from({ length: all * 2 }, (_, i) => i),
    [all, 2],
    "f32",
  );
  buffer.engramWrite(storage, sf);
  for (const useTmaAlignedColMajorSf of [false, true]) {
    const list = Array.from({ length: 10 }, () => random.int(0, all));
    const indices = Tensor.from(list, [5, 2], "i32");
    const fetched = buffer.engramFetch(indices, { useTmaAlignedColMajorSf })();
    const want = list.flatMap((entry) => [entry * 2, entry * 2 + 1]);
    expectEqual("fetched scales", fetched.sf?.toFloat32() ?? [], want);
    const strides = useTmaAlignedColMajorSf ? [1, 8] : [4, 1];
    expectEqual("strides of scales", fetched.sf?.strides ?? [], strides);
  }
}

function barriers(buffer: ElasticBuffer): void {
  for (const useCommStream of [true, false]) {
    for (const withCpuSync of [true, false]) {
      for (let i = 0; i < 5; i++) buffer.barrier({ useCommStream, withCpuSync });
    }
  }
}

/** What must be refused before any rank waits for another. */
function refusals(buffer: ElasticBuffer): void {
  const refused = (
    what: string,
    kind: typeof InputError | typeof BufferStateError,
    act: () => void,
  ): void => {
    try {
      act();
    } catch (error) {
      if (error instanceof kind) return;
      throw error;
    }
    throw new Error(`${what} was not refused`);
  };
  const bytes = Tensor.empty([5000], "u8");
  const { numRanks, rankIdx } = buffer;
  refused("a gather outside a session", BufferStateError, () => buffer.allGather(bytes));
  refused("33 gathers", InputError, () => {
    buffer.agrsSetConfig(1024, 33);
  });
  refused("a tensor that is too large", InputError, () => {
    buffer.ppSend(bytes, (rankIdx + 1) % numRanks);
  });
  if (numRanks > 3) {
    refused("no neighbour", InputError, () =>
      buffer.ppSend(bytes.slice(0, 0, 8), (rankIdx + 2) % numRanks),
    );
  }
  refused("an entry that is not there", InputError, () => {
    buffer.engramFetch(Tensor.from([20 * numRanks], [1], "i32"));
  });
  const x = Tensor.empty([1, 8], "bf16");
  const topkIdx = Tensor.from([99], [1, 1], "i64");
  refused("an expert that is not there", InputError, () => {
    buffer.dispatch(x, { topkIdx, numExperts: 4 * numRanks, numMaxTokensPerRank: 1 });
  });
  refused("a session within a session", BufferStateError, () => {
    using _session = buffer.agrsNewSession();
    buffer.createAgrsSession();
  });
  refused("a dispatch within a session", BufferStateError, () => {
    using _session = buffer.agrsNewSession();
    buffer.dispatch(x, { topkIdx, numExperts: numRanks });
  });
}
