// Sends one rank's jobs to one peer over a socket, in order. Small frames are gathered in blocks,
// large payloads go from where they lie. No more is handed to the socket than `inFlightLimit`, so a
// slow link costs patience, not memory.

import type { Socket } from "node:net";
import type { Job } from "./link-outbox.ts";
import { MemoryViews } from "./memory-views.ts";
import { directBytes, frameKinds, headerBytes, pieceBytes, writeHeader } from "./tcp-frames.ts";

const blockBytes = 64 << 10;
const inFlightLimit = 4 << 20;
const compactAt = 1024;

interface Block {
  readonly bytes: Uint8Array;
  readonly view: DataView;
  filled: number;
  /** Writes from it that the system has not taken. */
  writes: number;
}

/** One direction of a pair. */
export class TcpSender {
  readonly #socket: Socket;
  readonly #complete: (job: Job) => void;
  readonly #free: Block[] = [];
  readonly #views = new MemoryViews();
  #block: Block;
  /** Start of what is in the block but not written. */
  #unwritten = 0;
  #queue: Job[] = [];
  #head = 0;
  #inFlight = 0;
  #heartbeats = 0;
  #ended = false;

  /** `complete` is told of jobs whose source may change. */
  constructor(socket: Socket, complete: (job: Job) => void) {
    this.#socket = socket;
    this.#complete = complete;
    this.#block = newBlock();
  }

  get idle(): boolean {
    return this.#head === this.#queue.length && this.#inFlight === 0;
  }

  enqueue(job: Job): void {
    this.#queue.push(job);
  }

  /** Hands on as much as the limit allows. */
  pump(): void {
    if (this.#ended) return;
    const socket = this.#socket;
    socket.cork();
    while (this.#head < this.#queue.length && this.#inFlight < inFlightLimit) {
      const job = this.#queue[this.#head] as Job;
      const piece = Math.min(job.bytes - job.sent, pieceBytes);
      this.#send(job, piece);
      if (job.kind !== "put" || job.sent >= job.bytes) this.#head++;
    }
    this.#flushBlock();
    socket.uncork();
    if (this.#head > compactAt && this.#head * 2 > this.#queue.length) {
      this.#queue = this.#queue.slice(this.#head);
      this.#head = 0;
    }
  }

  /** Sent unless one is still on its way: a link that is stuck gets no more of them. */
  heartbeat(activity: Uint8Array): void {
    if (this.#ended || this.#heartbeats > 0) return;
    this.#heartbeats++;
    this.#sendControl(frameKinds.heartbeat, activity, () => {
      this.#heartbeats--;
    });
  }

  /** Drops what is queued, tells the peer. */
  abort(reason: Uint8Array): void {
    this.drop();
    if (!this.#ended) this.#sendControl(frameKinds.abort, reason);
  }

  /** The last word. */
  goodbye(): void {
    if (this.#ended) return;
    this.#sendControl(frameKinds.goodbye, new Uint8Array(0));
    this.#ended = true;
    this.#socket.end();
  }

  /** Gives up what is queued. */
  drop(): void {
    const queue = this.#queue.slice(this.#head);
    this.#queue = [];
    this.#head = 0;
    for (const job of queue) this.#complete(job);
  }

  /** The connection is gone: nothing more will be sent. */
  end(): void {
    this.#ended = true;
    this.drop();
  }

  #send(job: Job, piece: number): void {
    const isPut = job.kind === "put";
    const frame = {
      kind: frameKinds[job.kind],
      window: job.window,
      offset: job.offset + job.sent,
      low: isPut ? piece : job.low,
      high: job.high,
    };
    const inline = isPut && piece < directBytes;
    const at = this.#room(headerBytes + (inline ? piece : 0));
    const block = this.#block;
    writeHeader(block.view, at, frame);
    if (!isPut) {
      this.#complete(job);
      return;
    }
    const source = piece === 0 ? undefined : this.#views.at(job.source + job.sent, piece);
    job.sent += piece;
    const last = job.sent >= job.bytes;
    if (inline || source === undefined) {
      if (source !== undefined) block.bytes.set(source, at + headerBytes);
      if (last) this.#complete(job);
      return;
    }
    this.#flushBlock();
    this.#write(source, () => {
      if (last) this.#complete(job);
    });
  }

  /** Place in a block for so many bytes. */
  #room(bytes: number): number {
    if (this.#block.filled + bytes > blockBytes) {
      this.#flushBlock();
      this.#block = this.#free.pop() ?? newBlock();
      this.#unwritten = 0;
    }
    const at = this.#block.filled;
    this.#block.filled += bytes;
    return at;
  }

  #flushBlock(): void {
    const block = this.#block;
    const part = block.bytes.subarray(this.#unwritten, block.filled);
    if (part.length === 0) return;
    this.#unwritten = block.filled;
    block.writes++;
    this.#write(part, () => {
      block.writes--;
      if (block.writes > 0) return;
      if (block === this.#block) {
        // Everything in it is gone, unless frames were added since.
        if (this.#unwritten !== block.filled) return;
        block.filled = 0;
        this.#unwritten = 0;
        return;
      }
      block.filled = 0;
      if (this.#free.length < 4) this.#free.push(block);
    });
  }

  #write(bytes: Uint8Array, done: () => void): void {
    this.#inFlight += bytes.length;
    this.#socket.write(bytes, () => {
      // Also called when the connection ended; then the source is free all the same.
      this.#inFlight -= bytes.length;
      done();
      if (this.#head < this.#queue.length && this.#inFlight < inFlightLimit / 2) this.pump();
    });
  }

  #sendControl(kind: number, payload: Uint8Array, done: () => void = () => {}): void {
    const frame = new Uint8Array(headerBytes + payload.length);
    const view = new DataView(frame.buffer);
    writeHeader(view, 0, { kind, window: 0, offset: 0, low: payload.length, high: 0 });
    frame.set(payload, headerBytes);
    this.#flushBlock();
    this.#write(frame, done);
  }
}

function newBlock(): Block {
  const bytes = new Uint8Array(blockBytes);
  return { bytes, view: new DataView(bytes.buffer), filled: 0, writes: 0 };
}
