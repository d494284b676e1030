// What comes in over UCX: payloads go into windows as they come, signals wait until everything that
// was sent before them is there, because UCX may finish a large message after a small one that
// followed it.

import { addressOf } from "@open-infra/jit";
import type { LinkEngine } from "./link-engine.ts";
import { LinkProtocolError } from "./link-windows.ts";
import { frameKinds } from "./tcp-frames.ts";
import type { UcxReceiver, UcxRequest, UcxWorker } from "./ucx-library.ts";

/** Large puts are cut, so that a receiver fetches several at once. */
export const messageLimit: number = 8 << 20;

interface Frame {
  readonly peer: number;
  readonly sequence: number;
  readonly kind: number;
  readonly window: number;
  readonly offset: number;
  readonly low: number;
  readonly high: number;
}

/** One peer's stream: what has arrived beyond the first gap. */
interface Stream {
  next: number;
  readonly arrived: Map<number, Frame | undefined>;
}

interface Fetch {
  readonly frame: Frame;
  readonly request: UcxRequest;
  /** Memory for what belongs nowhere any more. */
  readonly keep: Uint8Array;
}

/** Applies messages of UCX to windows, in each peer's order. */
export class UcxInbox implements UcxReceiver {
  readonly #engine: LinkEngine;
  readonly #token: bigint;
  readonly #streams = new Map<number, Stream>();
  /** Large messages that were announced during the last progress. */
  readonly #announced: {
    readonly frame: Frame;
    readonly bytes: number;
    readonly descriptor: bigint;
  }[] = [];
  readonly #failed: { readonly peer: number; readonly reason: string }[] = [];
  #fetching: Fetch[] = [];
  worker: UcxWorker | undefined;

  constructor(engine: LinkEngine, token: bigint) {
    this.#engine = engine;
    this.#token = token;
  }

  message(header: Uint8Array, payload: Uint8Array): void {
    const frame = this.#parse(header);
    if (frame === undefined) return;
    this.#guard(frame.peer, () => {
      if (frame.kind === frameKinds.put) {
        this.#expectBytes(frame, payload.length);
        this.#engine.windows.target(frame.window, frame.offset, payload.length)?.set(payload);
        this.#arrive(frame.peer, frame.sequence, undefined);
      } else this.#arrive(frame.peer, frame.sequence, frame);
    });
  }

  large(header: Uint8Array, bytes: number, descriptor: bigint): void {
    const frame = this.#parse(header);
    // Only within a callback of UCX; the fetch is asked for after it.
    if (frame !== undefined) this.#announced.push({ frame, bytes, descriptor });
  }

  failed(peer: number, reason: string): void {
    // In the midst of UCX's own work; its endpoint is closed after it.
    this.#failed.push({ peer, reason: `UCX: ${reason}` });
  }

  /** Asks for announced payloads, notes those that have come. Returns whether there was any. */
  settle(): boolean {
    let any = false;
    for (const { peer, reason } of this.#failed.splice(0)) {
      any = true;
      this.#engine.gone(peer, reason);
    }
    for (const { frame, bytes, descriptor } of this.#announced.splice(0)) {
      any = true;
      this.#guard(frame.peer, () => {
        this.#expectBytes(frame, bytes);
        const target = this.#engine.windows.target(frame.window, frame.offset, bytes);
        const keep = target ?? new Uint8Array(bytes);
        const request = this.worker?.fetch(descriptor, addressOf(keep), bytes);
        if (request === undefined) this.#arrive(frame.peer, frame.sequence, undefined);
        else this.#fetching.push({ frame, request, keep });
      });
    }
    if (this.#fetching.length === 0) return any;
    this.#fetching = this.#fetching.filter(({ frame, request }) => {
      let ended = true;
      this.#guard(frame.peer, () => {
        ended = this.worker?.ended(request) ?? true;
        if (ended) this.#arrive(frame.peer, frame.sequence, undefined);
      });
      any ||= ended;
      return !ended;
    });
    return any;
  }

  #parse(header: Uint8Array): Frame | undefined {
    if (header.length !== 40) return undefined;
    const view = new DataView(header.buffer, header.byteOffset, header.length);
    // A message without this rank's token is a stranger's: UCX itself lets anyone in.
    if (view.getBigUint64(32, true) !== this.#token) return undefined;
    const peer = view.getInt32(28, true);
    this.#engine.heard(peer);
    return {
      peer,
      sequence: view.getUint32(24, true),
      kind: view.getInt32(0, true),
      window: view.getInt32(4, true),
      offset: view.getUint32(8, true) + view.getUint32(12, true) * 2 ** 32,
      low: view.getInt32(16, true),
      high: view.getInt32(20, true),
    };
  }

  #arrive(peer: number, sequence: number, frame: Frame | undefined): void {
    let stream = this.#streams.get(peer);
    if (stream === undefined) {
      stream = { next: 0, arrived: new Map() };
      this.#streams.set(peer, stream);
    }
    if (sequence !== stream.next) {
      stream.arrived.set(sequence, frame);
      return;
    }
    this.#apply(frame);
    stream.next = (stream.next + 1) >>> 0;
    while (stream.arrived.has(stream.next)) {
      const held = stream.arrived.get(stream.next);
      stream.arrived.delete(stream.next);
      this.#apply(held);
      stream.next = (stream.next + 1) >>> 0;
    }
  }

  #apply(frame: Frame | undefined): void {
    if (frame === undefined) return;
    const { kind, window, offset, low, high, peer } = frame;
    if (kind === frameKinds.signal || kind === frameKinds.add) {
      this.#engine.signal(window, offset, low, high, kind === frameKinds.add);
    } else if (kind === frameKinds.close) this.#engine.closed(peer, window);
    else throw new LinkProtocolError(`a message of kind ${kind}`);
  }

  #expectBytes(frame: Frame, bytes: number): void {
    if (frame.kind === frameKinds.put && frame.low === bytes && bytes <= messageLimit) return;
    throw new LinkProtocolError(`a message of kind ${frame.kind} with ${bytes} bytes`);
  }

  #guard(peer: number, body: () => void): void {
    try {
      body();
    } catch (error) {
      this.#failed.push({ peer, reason: `it broke the protocol: ${(error as Error).message}` });
    }
  }
}
