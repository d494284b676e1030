// The windows of this rank that peers behind a link may write into. Nothing that comes from a peer
// touches memory before it has passed the checks here.

import { viewOf } from "@open-infra/jit";

/** A peer named a place that does not exist; its connection ends. */
export class LinkProtocolError extends Error {
  override readonly name = "LinkProtocolError";
}

interface Entry {
  readonly data: Uint8Array;
  readonly flags: number;
  readonly flagCount: number;
}

/** Where registered windows lie. */
export class LinkWindows {
  readonly #open = new Map<number, Entry>();
  #registered = -1;

  register(
    number: number,
    at: { data: number; bytes: number; flags: number; flagCount: number },
  ): void {
    const data = at.bytes === 0 ? new Uint8Array(0) : viewOf(at.data, at.bytes);
    this.#open.set(number, { data, flags: at.flags, flagCount: at.flagCount });
    this.#registered = Math.max(this.#registered, number);
  }

  unregister(number: number): void {
    this.#open.delete(number);
  }

  /**
   * The bytes a put may write; undefined if the window is closed, when they are dropped.
   *
   * @throws LinkProtocolError for a place outside any window
   */
  target(number: number, offset: number, bytes: number): Uint8Array | undefined {
    const entry = this.#find(number);
    if (entry === undefined) return undefined;
    const end = offset + bytes;
    if (!Number.isSafeInteger(offset) || offset < 0 || end > entry.data.length) {
      throw new LinkProtocolError(
        `a put of ${bytes} bytes at ${offset} of window ${number}, which has ${entry.data.length}`,
      );
    }
    return entry.data.subarray(offset, end);
  }

  /** The address of a flag. @throws LinkProtocolError */
  flag(number: number, flag: number): number | undefined {
    const entry = this.#find(number);
    if (entry === undefined) return undefined;
    if (!Number.isInteger(flag) || flag < 0 || flag >= entry.flagCount) {
      throw new LinkProtocolError(`flag ${flag} of window ${number}, which has ${entry.flagCount}`);
    }
    return entry.flags + flag * 8;
  }

  #find(number: number): Entry | undefined {
    const entry = this.#open.get(number);
    if (entry !== undefined) return entry;
    if (Number.isInteger(number) && number >= 0 && number <= this.#registered) return undefined;
    throw new LinkProtocolError(`window ${number}, which was never opened`);
  }
}
