// What a peer sends over TCP, down to the byte: cut anywhere it means the same, and nothing it says
// touches memory outside the windows, whether it is broken or hostile.

import { addressOf } from "@open-infra/jit";
import { type Random, seededRandom, testSeed } from "@open-infra/testing";
import { describe, expect, it } from "vitest";
import { encodeAbort } from "../src/link-control.ts";
import type { LinkEngine } from "../src/link-engine.ts";
import { LinkProtocolError, LinkWindows } from "../src/link-windows.ts";
import { directBytes, FrameSink, frameKinds, headerBytes, writeHeader } from "../src/tcp-frames.ts";

const guard = 64;

/** Windows in memory whose surroundings are watched, and a record of what reached the engine. */
class Receiver {
  readonly memory: Uint8Array;
  readonly flags = new BigInt64Array(4);
  readonly log: string[] = [];
  readonly windows = new LinkWindows();
  readonly sink: FrameSink;

  constructor(bytes: number) {
    this.memory = new Uint8Array(bytes + 2 * guard).fill(0xee, 0, guard).fill(0xee, guard + bytes);
    const place = { data: addressOf(this.memory) + guard, bytes };
    this.windows.register(0, { ...place, flags: addressOf(this.flags), flagCount: 4 });
    const engine = {
      windows: this.windows,
      heard: () => {},
      signal: (window: number, flag: number, low: number, high: number, add: boolean) => {
        if (this.windows.flag(window, flag) === undefined) return;
        this.log.push(`${add ? "add" : "set"} ${flag} ${high}:${low}`);
      },
      closed: (_: number, window: number) => this.log.push(`close ${window}`),
      activity: (_: number, bytes_: Uint8Array) => this.log.push(`activity ${bytes_.length}`),
      aborted: ({ text }: { text: string }) => this.log.push(`abort ${text}`),
      gone: () => this.log.push("goodbye"),
    };
    this.sink = new FrameSink(engine as unknown as LinkEngine, 1, 1 << 16);
  }

  get data(): Uint8Array {
    return this.memory.subarray(guard, this.memory.length - guard);
  }

  get isIntact(): boolean {
    const edges = [this.memory.subarray(0, guard), this.memory.subarray(-guard)];
    return edges.every((edge) => edge.every((byte) => byte === 0xee));
  }

  /** Delivers bytes as a socket would: into the buffer the sink asks for, in pieces. */
  deliver(bytes: Uint8Array, pieceOf: () => number): void {
    for (let at = 0; at < bytes.length; ) {
      const buffer = this.sink.buffer();
      const count = Math.min(buffer.length, bytes.length - at, Math.max(1, pieceOf()));
      buffer.set(bytes.subarray(at, at + count));
      this.sink.onBytes(buffer.subarray(0, count));
      at += count;
    }
  }
}

interface Frame {
  readonly kind: number;
  readonly window?: number;
  readonly offset?: number;
  readonly low?: number;
  readonly high?: number;
  readonly payload?: Uint8Array;
}

function encode({ kind, window = 0, offset = 0, low, high = 0, payload }: Frame): Uint8Array {
  const body = payload ?? new Uint8Array(0);
  const bytes = new Uint8Array(headerBytes + body.length);
  const fields = { kind, window, offset, low: low ?? body.length, high };
  writeHeader(new DataView(bytes.buffer), 0, fields);
  bytes.set(body, headerBytes);
  return bytes;
}

function randomBytes(random: Random, count: number): Uint8Array {
  return Uint8Array.from({ length: count }, () => random.int(0, 256));
}

describe("frames over TCP", () => {
  it("mean the same however they are cut", () => {
    const seed = testSeed();
    const random = seededRandom(seed);
    const bytes = 3 * directBytes;
    for (let round = 0; round < 30; round++) {
      const receiver = new Receiver(bytes);
      const expected = new Uint8Array(bytes);
      const stream: Uint8Array[] = [];
      const log: string[] = [];
      for (let i = 0; i < 12; i++) {
        const count = random.pick([0, 1, 23, 500, directBytes - 1, directBytes, directBytes + 9]);
        const offset = random.int(0, bytes - count + 1);
        const payload = randomBytes(random, count);
        expected.set(payload, offset);
        stream.push(encode({ kind: frameKinds.put, offset, payload }));
        const [low, high] = [random.int(-5, 5), random.int(-5, 5)];
        stream.push(encode({ kind: frameKinds.signal, offset: i % 4, low, high }));
        log.push(`set ${i % 4} ${high}:${low}`);
      }
      stream.push(encode({ kind: frameKinds.heartbeat, payload: new Uint8Array(64) }));
      const reason = { code: 1, culprit: 2, reporter: 0, text: "why" };
      stream.push(encode({ kind: frameKinds.abort, payload: encodeAbort(reason) }));
      stream.push(encode({ kind: frameKinds.close, window: 0 }), encode({ kind: 7 }));
      log.push("activity 64", "abort why", "close 0", "goodbye");
      receiver.deliver(Buffer.concat(stream), () => random.pick([1, 7, 24, 1000, 1 << 20]));
      expect(receiver.log, `seed ${seed}`).toEqual(log);
      expect(Buffer.compare(receiver.data, expected), `seed ${seed}`).toBe(0);
      expect(receiver.isIntact).toBe(true);
    }
  });

  it.each<[string, Frame]>([
    ["beyond the end", { kind: 1, offset: 990, payload: new Uint8Array(11) }],
    ["far beyond it", { kind: 1, offset: 2 ** 53, payload: new Uint8Array(1) }],
    ["of a window that was never opened", { kind: 1, window: 1, payload: new Uint8Array(1) }],
    ["of a window before the first", { kind: 1, window: -1, payload: new Uint8Array(1) }],
    ["of a size that no put has", { kind: 1, low: 0x7fffffff }],
    ["of a negative size", { kind: 1, low: -1 }],
    ["of a flag that is not there", { kind: 2, offset: 4 }],
    ["of control without end", { kind: 5, low: 1 << 30 }],
    ["of no known kind", { kind: 99 }],
  ])("%s are refused before any memory is touched", (_, frame) => {
    const receiver = new Receiver(1000);
    expect(() => receiver.deliver(encode(frame), () => 1 << 20)).toThrow(LinkProtocolError);
    expect(receiver.isIntact && receiver.data.every((byte) => byte === 0)).toBe(true);
  });

  it("to a closed window are read past, and what follows still counts", () => {
    const receiver = new Receiver(1000);
    receiver.windows.unregister(0);
    const late = encode({ kind: 1, payload: new Uint8Array(900).fill(5) });
    const flag = encode({ kind: 2, offset: 1, low: 1 });
    const bye = encode({ kind: 7 });
    receiver.deliver(Buffer.concat([late, flag, bye]), () => 100);
    expect(receiver.log).toEqual(["goodbye"]);
    expect(receiver.data.every((byte) => byte === 0)).toBe(true);
  });

  it("of random bytes change nothing outside the windows", () => {
    const seed = testSeed();
    const random = seededRandom(seed);
    for (let round = 0; round < 300; round++) {
      const receiver = new Receiver(256);
      const bytes = randomBytes(random, 200);
      // Often enough a header that is nearly right.
      if (round % 2 === 0) bytes.set([random.int(0, 9), 0, 0, 0, random.int(0, 2), 0, 0, 0], 0);
      try {
        receiver.deliver(bytes, () => 64);
      } catch (error) {
        expect(error, `seed ${seed}`).toBeInstanceOf(LinkProtocolError);
      }
      expect(receiver.isIntact, `seed ${seed}, round ${round}`).toBe(true);
    }
  });
});
