// How questions to the store travel: a length, then JSON. Small texts only; tensors never.

/** What a client asks. `will` is written by the server when the client goes without `bye`. */
export interface StoreRequest {
  readonly id: number;
  readonly call: "set" | "get" | "add" | "will" | "bye";
  readonly key: string;
  readonly value?: string | number;
  readonly timeoutMs?: number;
}

export interface StoreResponse {
  readonly id: number;
  readonly value?: string | number;
  /** Nobody has written the key in time. */
  readonly timedOut?: number;
  /** The request makes no sense. */
  readonly problem?: string;
}

/** The largest frame that either side takes. */
export const frameLimit: number = 4 << 20;

export function encodeFrame(message: StoreRequest | StoreResponse): Buffer {
  const text = Buffer.from(JSON.stringify(message), "utf8");
  const frame = Buffer.allocUnsafe(4 + text.length);
  frame.writeUInt32LE(text.length, 0);
  text.copy(frame, 4);
  return frame;
}

/** Cuts a stream of bytes into frames. */
export class FrameReader {
  #chunks: Uint8Array[] = [];
  #held = 0;

  /** The frames that are complete. @throws Error for one beyond the limit or that is not JSON */
  push(bytes: Uint8Array): unknown[] {
    this.#chunks.push(Uint8Array.from(bytes));
    this.#held += bytes.length;
    const frames: unknown[] = [];
    for (;;) {
      if (this.#held < 4) return frames;
      // Joining once a frame is complete keeps large frames from being copied for every chunk.
      const need = this.#need();
      if (need > frameLimit) throw new Error(`a frame of ${need} bytes; at most ${frameLimit}`);
      if (this.#held < 4 + need) return frames;
      const all = Buffer.concat(this.#chunks);
      frames.push(JSON.parse(all.toString("utf8", 4, 4 + need)));
      this.#chunks = [all.subarray(4 + need)];
      this.#held -= 4 + need;
    }
  }

  #need(): number {
    if ((this.#chunks[0]?.length ?? 0) < 4) this.#chunks = [Buffer.concat(this.#chunks)];
    const first = this.#chunks[0] as Uint8Array;
    return Buffer.from(first.buffer, first.byteOffset, 4).readUInt32LE(0);
  }
}
