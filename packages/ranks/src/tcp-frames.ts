// Frames between two ranks over TCP: a header of 24 bytes, then the payload of a put, a heartbeat
// or an abort. The reader puts payloads where they belong: large ones are read by the system
// straight into window memory.

import { decodeAbort } from "./link-control.ts";
import type { LinkEngine } from "./link-engine.ts";
import { LinkProtocolError } from "./link-windows.ts";

/** Kinds of frames. */
export const frameKinds = {
  put: 1,
  signal: 2,
  add: 3,
  close: 4,
  heartbeat: 5,
  abort: 6,
  goodbye: 7,
} as const;

export const headerBytes = 24;
/** Puts travel in pieces, so that what is urgent need not wait for the end of a large one. */
export const pieceBytes: number = 1 << 20;
/** Payloads from here on are worth a system call of their own. */
export const directBytes: number = 16 << 10;
const controlLimit = 1024;

/** Writes a header; `low` is the payload's length for frames that have one. */
export function writeHeader(
  out: DataView,
  at: number,
  frame: { kind: number; window: number; offset: number; low: number; high: number },
): void {
  out.setInt32(at, frame.kind, true);
  out.setInt32(at + 4, frame.window, true);
  out.setUint32(at + 8, frame.offset % 2 ** 32, true);
  out.setUint32(at + 12, Math.floor(frame.offset / 2 ** 32), true);
  out.setInt32(at + 16, frame.low, true);
  out.setInt32(at + 20, frame.high, true);
}

/** Applies what one peer sends. Holds no more than a header and a control frame of it. */
export class FrameSink {
  readonly #engine: LinkEngine;
  readonly #peer: number;
  readonly #scratch: Uint8Array;
  readonly #header = new Uint8Array(headerBytes);
  readonly #headerView = new DataView(this.#header.buffer);
  #headerHeld = 0;
  /** What the current payload goes to; undefined: nowhere. */
  #target: Uint8Array | undefined;
  #done = 0;
  #left = 0;
  #control: "heartbeat" | "abort" | undefined;
  /** The next bytes were read into the target itself. */
  #direct = false;

  constructor(engine: LinkEngine, peer: number, scratchBytes: number = 64 << 10) {
    this.#engine = engine;
    this.#peer = peer;
    this.#scratch = new Uint8Array(scratchBytes);
  }

  /** Where the next bytes should be read to. */
  buffer(): Uint8Array {
    this.#direct = this.#target !== undefined && this.#left >= directBytes;
    return this.#direct
      ? (this.#target as Uint8Array).subarray(this.#done, this.#done + this.#left)
      : this.#scratch;
  }

  /** @throws LinkProtocolError for what no peer would send */
  onBytes(bytes: Uint8Array): void {
    this.#engine.heard(this.#peer);
    if (this.#direct) {
      this.#direct = false;
      this.#advance(bytes.length);
      return;
    }
    let at = 0;
    while (at < bytes.length) {
      if (this.#left > 0) {
        const part = Math.min(this.#left, bytes.length - at);
        this.#target?.set(bytes.subarray(at, at + part), this.#done);
        at += part;
        this.#advance(part);
        continue;
      }
      const part = Math.min(headerBytes - this.#headerHeld, bytes.length - at);
      this.#header.set(bytes.subarray(at, at + part), this.#headerHeld);
      at += part;
      this.#headerHeld += part;
      if (this.#headerHeld < headerBytes) return;
      this.#headerHeld = 0;
      this.#begin();
    }
  }

  #begin(): void {
    const view = this.#headerView;
    const kind = view.getInt32(0, true);
    const window = view.getInt32(4, true);
    const offset = view.getUint32(8, true) + view.getUint32(12, true) * 2 ** 32;
    const low = view.getInt32(16, true);
    const high = view.getInt32(20, true);
    const engine = this.#engine;
    switch (kind) {
      case frameKinds.put:
        if (low < 0 || low > pieceBytes) throw new LinkProtocolError(`a put of ${low} bytes`);
        this.#receive(engine.windows.target(window, offset, low), low);
        return;
      case frameKinds.signal:
      case frameKinds.add:
        engine.signal(window, offset, low, high, kind === frameKinds.add);
        return;
      case frameKinds.close:
        engine.closed(this.#peer, window);
        return;
      case frameKinds.heartbeat:
      case frameKinds.abort:
        if (low < 0 || low > controlLimit) throw new LinkProtocolError(`${low} bytes of control`);
        this.#control = kind === frameKinds.abort ? "abort" : "heartbeat";
        this.#receive(new Uint8Array(low), low);
        return;
      case frameKinds.goodbye:
        engine.gone(this.#peer);
        return;
      default:
        throw new LinkProtocolError(`a frame of kind ${kind}`);
    }
  }

  #receive(target: Uint8Array | undefined, bytes: number): void {
    this.#target = target;
    this.#done = 0;
    this.#left = bytes;
    if (bytes === 0) this.#advance(0);
  }

  #advance(bytes: number): void {
    this.#done += bytes;
    this.#left -= bytes;
    if (this.#left > 0) return;
    const target = this.#target ?? new Uint8Array(0);
    this.#target = undefined;
    const control = this.#control;
    this.#control = undefined;
    if (control === "heartbeat") this.#engine.activity(this.#peer, target);
    else if (control === "abort") this.#engine.aborted(decodeAbort(target));
  }
}
