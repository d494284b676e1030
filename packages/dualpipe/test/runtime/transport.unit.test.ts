import type { MessagePort } from "node:worker_threads";
import { Tensor } from "@open-infra/tensor";
import { seededRandom, testSeed } from "@open-infra/testing";
import { afterAll, describe, expect, it } from "vitest";
import { RankLostError } from "../../src/runtime/errors.ts";
import { InProcessNetwork } from "../../src/runtime/in-process.ts";
import {
  describeKey,
  MessageKind,
  messageKey,
  parseMessageKey,
  type Transport,
} from "../../src/runtime/transport.ts";
import { portsOf, WorkerTransport, workerSeats } from "../../src/runtime/worker-transport.ts";
import { transportContract } from "./transport-contract.ts";

const opened: MessagePort[] = [];
afterAll(() => {
  for (const port of opened) port.close();
});

/** Ends of worker threads' transport, held by one thread: ports and words do not mind. */
function connectWorkers(numRanks: number): WorkerTransport[] {
  return workerSeats(numRanks).seats.map((seat) => {
    opened.push(...portsOf(seat));
    return new WorkerTransport(seat);
  });
}

transportContract("in process", (numRanks) => {
  const network = new InProcessNetwork({ numRanks });
  return Array.from({ length: numRanks }, (_, rank) => network.transport(rank));
});

transportContract("worker threads", connectWorkers);

describe("worker threads: shared memory", () => {
  it("is used again once given back, and grows only with what is under way", async () => {
    const [a, b] = connectWorkers(2) as [WorkerTransport, WorkerTransport];
    const tensor = Tensor.empty([1000], "f64");
    const held: { release(): void }[] = [];
    for (let i = 0; i < 100; i++) {
      const key = messageKey(MessageKind.F, 0, 1, i, 0);
      a.send(1, key, [tensor], 1000);
      held.push(await b.receive(0, key).wait(1000));
      // Three at a time.
      if (held.length === 3) held.shift()?.release();
    }
    expect(a.allocatedBytes).toBe(3 * 8192);
    expect(b.allocatedBytes).toBe(0);
  });
});

describe("worker threads: the host", () => {
  it("ends all ranks", async () => {
    const { seats, abort } = workerSeats(2);
    const [a] = seats.map((seat) => {
      opened.push(...portsOf(seat));
      return new WorkerTransport(seat);
    });
    const waiting = a?.receive(1, 0).wait(5000);
    abort();
    await expect(waiting).rejects.toMatchObject({ code: "aborted", abortedBy: -1 });
  });
});

describe("in process: what goes wrong", () => {
  it("delays by seeded turns, and keeps every message", async () => {
    const random = seededRandom(testSeed());
    const network = new InProcessNetwork({ numRanks: 2, delayTurns: () => random.int(0, 20) });
    const [a, b] = [network.transport(0), network.transport(1)] as [Transport, Transport];
    const keys = Array.from({ length: 30 }, (_, i) => messageKey(MessageKind.B, 1, i, 3, 2));
    for (const key of keys) a.send(1, key, [Tensor.from([key], [1], "f64")], 1000);
    for (const key of keys) {
      const { tensors } = await b.receive(0, key).wait(5000);
      expect(tensors[0]?.toFloat64()[0], `seed ${random.seed}`).toBe(key);
    }
    expect(network.sent).toEqual({ messages: 30, bytes: 240 });
  });

  it("ends all when a rank is lost", async () => {
    const network = new InProcessNetwork({ numRanks: 3 });
    const waiting = network.transport(0).receive(1, 0).wait(5000);
    network.lose(2);
    const error = await waiting.catch((e: unknown) => e);
    expect(error).toMatchObject({ code: "aborted", abortedBy: 2 });
    expect((error as Error).cause).toBeInstanceOf(RankLostError);
  });
});

describe("keys", () => {
  it("hold all their parts, up to the largest", () => {
    for (const kind of [0, 1, 2] as const) {
      for (const stage of [0, 1, 65_535]) {
        for (const microBatch of [0, 12_345, 2 ** 20 - 1]) {
          const parts = { kind, direction: 1, stage, microBatch, step: 8191 };
          const key = messageKey(kind, 1, stage, microBatch, 8191);
          expect(Number.isSafeInteger(key)).toBe(true);
          expect(parseMessageKey(key)).toEqual(parts);
        }
      }
    }
    expect(describeKey(messageKey(MessageKind.B, 1, 2, 3, 4))).toBe(
      "the output's gradient of direction 1, stage 2, micro-batch 3",
    );
  });
});
