// What the executor relies on, as tests that every transport must pass.

import { byteSize, dtypes, StorageError, Tensor } from "@open-infra/tensor";
import { seededRandom, testSeed } from "@open-infra/testing";
import { describe, expect, it } from "vitest";
import { PipelineAbortedError, WaitTimeoutError } from "../../src/runtime/errors.ts";
import {
  type Message,
  MessageKind,
  messageKey,
  sendWindow,
  type Transport,
} from "../../src/runtime/transport.ts";
import { bitsOf } from "./reference.ts";

const key = (microBatch: number, kind: MessageKind = MessageKind.F): number =>
  messageKey(kind, 0, 1, microBatch, 0);

const waitMs = 10_000;

function receive(transport: Transport, from: number, k: number): Promise<Message> {
  return transport.receive(from, k).wait(waitMs);
}

/** Makes connected ends, all in this thread. */
export type Connect = (numRanks: number) => readonly Transport[] | Promise<readonly Transport[]>;

const pair = async (connect: Connect): Promise<readonly [Transport, Transport]> =>
  (await connect(2)) as unknown as readonly [Transport, Transport];

function arrivalTests(connect: Connect): void {
  it("arrive with dtypes, shapes and bits", async () => {
    const [a, b] = await pair(connect);
    const random = seededRandom(testSeed());
    for (const [i, dtype] of dtypes.entries()) {
      for (const shape of [[3, 5], [], [0, 4], [1, 2, 3, 4]]) {
        const tensor = Tensor.empty(shape, dtype);
        tensor.bytes().set(Array.from(tensor.bytes(), () => random.int(0, 256)));
        const second = Tensor.from([1, 2, 3], [3], "i32");
        a.send(1, key(i), [tensor, second], waitMs);
        const message = await receive(b, 0, key(i));
        expect(message.tensors.map((t) => t.describe())).toEqual([
          `tensor ${dtype}[${shape}]`,
          "tensor i32[3]",
        ]);
        expect(message.tensors.map(bitsOf)).toEqual([tensor, second].map(bitsOf));
        expect(byteSize(dtype, tensor.size)).toBe(message.tensors[0]?.byteLength);
        message.release();
      }
    }
  });

  it("are taken when they are sent, and do not change afterwards", async () => {
    const [a, b] = await pair(connect);
    const tensor = Tensor.from([1, 2], [2], "f64");
    a.send(1, key(0), [tensor], waitMs);
    tensor.fill(9);
    expect([...((await receive(b, 0, key(0))).tensors[0] as Tensor).toFloat64()]).toEqual([1, 2]);
  });

  it("are found by key, in any order, each once", async () => {
    const [a, b] = await pair(connect);
    const random = seededRandom(testSeed());
    const keys = Array.from({ length: 40 }, (_, i) => key(i, i % 2 === 0 ? 0 : 1));
    for (const k of keys) a.send(1, k, [Tensor.from([k], [1], "f64")], waitMs);
    for (const k of keys.toSorted(() => random.next() - 0.5)) {
      const { tensors, release } = await receive(b, 0, k);
      expect(tensors[0]?.toFloat64()[0], `seed ${random.seed}`).toBe(k);
      release();
      expect(b.receive(0, k).poll(), `seed ${random.seed}`).toBeUndefined();
    }
  });
}

function orderTests(connect: Connect): void {
  it("may be waited for before they are sent, by several at once", async () => {
    const [a, b] = await pair(connect);
    const waits = [2, 0, 1].map((i) => receive(b, 0, key(i)));
    await new Promise((resolve) => setImmediate(resolve));
    for (const i of [0, 1, 2]) a.send(1, key(i), [Tensor.from([i], [1], "f64")], waitMs);
    const got = await Promise.all(waits);
    expect(got.map(({ tensors }) => tensors[0]?.toFloat64()[0])).toEqual([2, 0, 1]);
  });

  it("are seen without a turn of the event loop", async () => {
    const [a, b] = await pair(connect);
    const posted = b.receive(0, key(7));
    expect(posted.poll()).toBeUndefined();
    a.send(1, key(7), [Tensor.from([7], [1], "u8")], waitMs);
    expect(posted.poll()?.tensors[0]?.toFloat64()[0]).toBe(7);
  });

  it("of one key do not mix between ranks", async () => {
    const ends = await connect(3);
    for (const { rank, send } of ends.map((t) => ({ rank: t.rank, send: t.send.bind(t) }))) {
      for (let to = 0; to < 3; to++) {
        if (to !== rank) send(to, key(0), [Tensor.from([10 * rank + to], [1], "f64")], waitMs);
      }
    }
    for (const end of ends) {
      for (let from = 0; from < 3; from++) {
        if (from === end.rank) continue;
        const { tensors } = await receive(end, from, key(0));
        expect(tensors[0]?.toFloat64()[0]).toBe(10 * from + end.rank);
      }
    }
  });
}

function memoryTests(connect: Connect): void {
  it("refuses tensors of a message that was given back", async () => {
    const [a, b] = await pair(connect);
    a.send(1, key(0), [Tensor.from([1], [1], "f64")], waitMs);
    const { tensors, release } = await receive(b, 0, key(0));
    release();
    release();
    expect(() => tensors[0]?.raw()).toThrow(StorageError);
  });

  it("fails what waits and what comes after an abort, on all ranks", async () => {
    const [a, b, c] = (await connect(3)) as [Transport, Transport, Transport];
    const waiting = expect(receive(b, 0, key(0))).rejects.toThrow(PipelineAbortedError);
    await new Promise((resolve) => setImmediate(resolve));
    c.abort(new Error("out of paper"));
    a.abort(new Error("later, and not what counts"));
    await waiting;
    for (const end of [a, b, c]) {
      const peer = (end.rank + 1) % 3;
      const wanted = expect.objectContaining({ code: "aborted", abortedBy: 2 });
      await expect(receive(end, peer, key(1))).rejects.toEqual(wanted);
      expect(() => end.receive(peer, key(1)).poll()).toThrow(PipelineAbortedError);
      expect(() => end.send(peer, key(1), [], waitMs)).toThrow(PipelineAbortedError);
    }
  });
}

function waitTests(connect: Connect): void {
  it("asks a sender to wait while the receiver is a window behind", async () => {
    const [a, b] = await pair(connect);
    const small = [Tensor.from([1], [1], "u8")];
    for (let i = 0; i < sendWindow; i++) expect(a.send(1, key(i), small, waitMs)).toBeUndefined();
    let room = false;
    const wait = a.send(1, key(99), small, waitMs)?.then(() => {
      room = true;
    });
    for (let i = 0; i < 5; i++) await new Promise((resolve) => setImmediate(resolve));
    expect(room).toBe(false);
    // Posting is enough; the message need not be used.
    b.receive(0, key(0));
    await wait;
    expect(room).toBe(true);
    const late = await a.send(1, key(100), small, 20)?.catch((e: unknown) => e);
    expect((late as Error | undefined)?.message).toBe(
      "rank 0 waited 20 ms for a receive, to send the input of direction 0, stage 1, " +
        "micro-batch 100, from rank 1",
    );
    const ended = expect(a.send(1, key(101), small, waitMs)).rejects.toThrow(PipelineAbortedError);
    b.abort(new Error("enough"));
    await ended;
  });

  it("waits no longer than told, and says for what and for whom", async () => {
    const [, b] = await pair(connect);
    const error = await b
      .receive(0, key(5))
      .wait(20)
      .catch((e: unknown) => e);
    expect(error).toBeInstanceOf(WaitTimeoutError);
    expect((error as Error).message).toBe(
      "rank 1 waited 20 ms for the input of direction 0, stage 1, micro-batch 5 from rank 0",
    );
  });
}

/** The tests, for one transport. */
export function transportContract(name: string, connect: Connect): void {
  describe(`${name}: messages`, () => {
    arrivalTests(connect);
    orderTests(connect);
  });
  describe(`${name}: memory and ends`, () => {
    memoryTests(connect);
    waitTests(connect);
  });
}
