// What comes in over UCX: payloads go into windows as they come, signals wait until everything that
// was sent before them is there, because UCX may finish a large message after a small one that
// followed it.

import { addressOf } from "@open-infra/jit";
import type { LinkEngine } from "./link-engine.ts";
import { LinkProtocolError } from "./link-windows.ts";
import { FrameSink } from "./tcp-frames.ts";
import type { UcxReceiver, UcxRequest, UcxWorker } from "./ucx-library.ts";

/** A header as over TCP, the sequence number, the sender, the receiver's token. */
export const messageHeaderBytes = 40;
/** Large puts are cut, so that a receiver fetches several at once. */
export const messageLimit: number = 8 << 20;

/** A message is one piece of a put, or small frames one after the other as they are over TCP. */
export const messageKinds = { put: 1, batch: 2 } as const;
export const batchLimit: number = 64 << 10;

interface Message {
  readonly peer: number;
  readonly sequence: number;
  readonly kind: number;
  readonly window: number;
  readonly offset: number;
  readonly bytes: number;
}

/** One peer's stream: batches that came before something that was sent earlier. */
interface Stream {
  next: number;
  /** By sequence number; undefined: a put, which is in its window already. */
  readonly early: Map<number, Uint8Array | undefined>;
  readonly sink: FrameSink;
}

interface Fetch {
  readonly message: Message;
  readonly request: UcxRequest;
  /** Where it goes to. */
  readonly target: Uint8Array;
}

/** Applies messages of UCX to windows, in each peer's order. */
export class UcxInbox implements UcxReceiver {
  readonly #engine: LinkEngine;
  readonly #token: bigint;
  readonly #streams = new Map<number, Stream>();
  /** Large messages that were announced during the last progress. */
  readonly #announced: { readonly message: Message; readonly descriptor: bigint }[] = [];
  readonly #failed: { readonly peer: number; readonly reason: string }[] = [];
  #fetching: Fetch[] = [];
  worker: UcxWorker | undefined;

  constructor(engine: LinkEngine, token: bigint) {
    this.#engine = engine;
    this.#token = token;
  }

  message(header: Uint8Array, payload: Uint8Array): void {
    const message = this.#parse(header);
    if (message === undefined) return;
    this.#guard(message.peer, () => {
      expectBytes(message, payload.length);
      if (message.kind === messageKinds.put) {
        this.#engine.windows.target(message.window, message.offset, payload.length)?.set(payload);
      }
      this.#arrive(message, payload);
    });
  }

  large(header: Uint8Array, bytes: number, descriptor: bigint): void {
    const message = this.#parse(header);
    // Within a callback of UCX; the fetch is asked for after it.
    if (message !== undefined) this.#announced.push({ message: { ...message, bytes }, descriptor });
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
    for (const { message, descriptor } of this.#announced.splice(0)) {
      any = true;
      this.#guard(message.peer, () => this.#fetch(message, descriptor));
    }
    if (this.#fetching.length === 0) return any;
    this.#fetching = this.#fetching.filter(({ message, request, target }) => {
      let ended = true;
      this.#guard(message.peer, () => {
        ended = this.worker?.ended(request) ?? true;
        if (ended) this.#arrive(message, target);
      });
      any ||= ended;
      return !ended;
    });
    return any;
  }

  #fetch(message: Message, descriptor: bigint): void {
    const { kind, window, offset, bytes } = message;
    expectBytes(message, bytes);
    const isPut = kind === messageKinds.put;
    const place = isPut ? this.#engine.windows.target(window, offset, bytes) : undefined;
    const target = place ?? new Uint8Array(bytes);
    const request = this.worker?.fetch(descriptor, addressOf(target), bytes);
    if (request === undefined) this.#arrive(message, target);
    else this.#fetching.push({ message, request, target });
  }

  #parse(header: Uint8Array): Message | undefined {
    if (header.length !== messageHeaderBytes) return undefined;
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
      bytes: view.getInt32(16, true),
    };
  }

  #arrive({ peer, sequence, kind }: Message, payload: Uint8Array): void {
    let stream = this.#streams.get(peer);
    if (stream === undefined) {
      stream = { next: 0, early: new Map(), sink: new FrameSink(this.#engine, peer, 0) };
      this.#streams.set(peer, stream);
    }
    const batch = kind === messageKinds.batch ? payload : undefined;
    if (sequence !== stream.next) {
      // The payload is UCX's, and valid for now only.
      stream.early.set(sequence, batch?.slice());
      return;
    }
    this.#apply(stream, batch);
    while (stream.early.has(stream.next)) {
      const held = stream.early.get(stream.next);
      stream.early.delete(stream.next);
      this.#apply(stream, held);
    }
  }

  #apply(stream: Stream, batch: Uint8Array | undefined): void {
    stream.next = (stream.next + 1) >>> 0;
    if (batch !== undefined) stream.sink.onBytes(batch);
  }

  #guard(peer: number, body: () => void): void {
    try {
      body();
    } catch (error) {
      this.#failed.push({ peer, reason: `it broke the protocol: ${(error as Error).message}` });
    }
  }
}

function expectBytes({ kind, bytes: told }: Message, bytes: number): void {
  const limit = kind === messageKinds.put ? messageLimit : batchLimit;
  if (kind >= 1 && kind <= 2 && told === bytes && bytes <= limit) return;
  throw new LinkProtocolError(`a message of kind ${kind} with ${bytes} bytes`);
}
