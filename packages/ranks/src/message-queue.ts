// What has come in from one peer: messages nobody asked for yet, and whoever asked before they
// came; by tag, in order.

/** A message that is, or will be, here. */
export interface Message {
  bytes?: Uint8Array<ArrayBuffer>;
}

/** One peer's incoming messages. */
export class Incoming {
  readonly #limit: number;
  readonly #ready = new Map<number, Uint8Array<ArrayBuffer>[]>();
  readonly #claims = new Map<number, Message[]>();
  #unclaimed = 0;

  constructor(unclaimedBytesMax: number) {
    this.#limit = unclaimedBytesMax;
  }

  /** The next message with this tag: filled now, or once it comes. */
  claim(tag: number): Message {
    const message: Message = {};
    const bytes = this.take(tag);
    if (bytes === undefined) {
      const claims = this.#claims.get(tag);
      if (claims === undefined) this.#claims.set(tag, [message]);
      else claims.push(message);
    } else {
      message.bytes = bytes;
    }
    return message;
  }

  /** The next message with this tag, if it is here and nobody has asked for it. */
  take(tag: number): Uint8Array<ArrayBuffer> | undefined {
    const ready = this.#ready.get(tag);
    const bytes = ready?.shift();
    if (ready?.length === 0) this.#ready.delete(tag);
    if (bytes !== undefined) this.#unclaimed -= bytes.length;
    return bytes;
  }

  /** Whether a message may come in now: it is asked for, or there is room to keep it. */
  accepts(tag: number, bytes: number): boolean {
    return this.#claims.has(tag) || this.#unclaimed === 0 || this.#unclaimed + bytes <= this.#limit;
  }

  deliver(tag: number, bytes: Uint8Array<ArrayBuffer>): void {
    const claims = this.#claims.get(tag);
    const claim = claims?.shift();
    if (claims?.length === 0) this.#claims.delete(tag);
    if (claim !== undefined) {
      claim.bytes = bytes;
      return;
    }
    this.#unclaimed += bytes.length;
    const ready = this.#ready.get(tag);
    if (ready === undefined) this.#ready.set(tag, [bytes]);
    else ready.push(bytes);
  }
}
