// An event of native code on the event loop: the reading end of two connected sockets, the other of
// which a native thread writes, as a promise of its next writing. Where the system has none it is a
// timer. Node's own sockets, not a callback of the foreign-function library: that ends the whole
// process if it fires while its thread is being terminated.

import { Socket } from "node:net";

const pollMs = 1;

/** Calls back whenever an event was written. Owns the descriptor; `destroy` closes it. */
export function listenToEvent(descriptor: number, written: () => void): Socket {
  const callback = (): boolean => {
    written();
    return true;
  };
  // How often it was written does not matter, so its bytes need no room.
  const onread = { buffer: new Uint8Array(64), callback };
  const options = { fd: descriptor, readable: true, writable: false, onread };
  const socket = new Socket(options as ConstructorParameters<typeof Socket>[0]);
  socket.on("error", written);
  return socket;
}

/** Wakes JavaScript when native code writes the event. */
export class EventDescriptor implements Disposable {
  readonly #socket: Socket | undefined;
  #waiting: PromiseWithResolvers<void> | undefined;

  /** @param descriptor The reading end, which is closed with this; −1 where there is none. */
  constructor(descriptor: number) {
    if (descriptor < 0) return;
    this.#socket = listenToEvent(descriptor, () => this.#wake());
    this.#socket.unref();
  }

  /**
   * Resolves once it is written, all that wait with one writing; also resolves when this is closed,
   * so whoever waits looks again. Keeps the event loop alive meanwhile.
   */
  next(): Promise<void> {
    if (this.#waiting !== undefined) return this.#waiting.promise;
    const waiting = Promise.withResolvers<void>();
    this.#waiting = waiting;
    if (this.#socket === undefined) setTimeout(() => this.#wake(), pollMs);
    else this.#socket.ref();
    return waiting.promise;
  }

  #wake(): void {
    const waiting = this.#waiting;
    if (waiting === undefined) return;
    this.#waiting = undefined;
    this.#socket?.unref();
    waiting.resolve();
  }

  [Symbol.dispose](): void {
    this.#socket?.destroy();
    this.#wake();
  }
}
