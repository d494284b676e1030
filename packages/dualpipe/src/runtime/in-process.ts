// All ranks in one event loop: for tests, small runs and stages that are asynchronous by nature.
// Delivery can be delayed by seeded random numbers of turns, a rank can be lost and messages
// dropped, so that what threads do by chance can be replayed.

import { HostStorage, Tensor } from "@open-infra/tensor";
import { PipelineAbortedError, RankLostError, WaitTimeoutError } from "./errors.ts";
import { Mailbox } from "./mailbox.ts";
import {
  describeKey,
  type Message,
  type Receive,
  sendWindow,
  type Transport,
} from "./transport.ts";

/** How an in-process network misbehaves; by default it does not. */
export interface InProcessOptions {
  readonly numRanks: number;
  /**
   * Turns of the event loop a message takes, drawn for each; 0 delivers at once. Draw from a seeded
   * source to replay an order. @default 0
   */
  readonly delayTurns?: (from: number, to: number, key: number) => number;
  /** Whether a message is lost on its way. @default never */
  readonly drop?: (from: number, to: number, key: number) => boolean;
}

/** A copy of the tensors that is one message. */
function copyMessage(tensors: readonly Tensor[]): Message {
  const storages: HostStorage[] = [];
  const copies = tensors.map((tensor) => {
    const storage = HostStorage.allocate(tensor.byteLength);
    storage.bytes.set(tensor.bytes());
    storages.push(storage);
    return new Tensor({ dtype: tensor.dtype, shape: tensor.shape, storage, name: tensor.name });
  });
  return {
    tensors: copies,
    release: () => {
      for (const storage of storages) storage[Symbol.dispose]();
    },
  };
}

interface Waiter {
  readonly room: PromiseWithResolvers<void>;
  readonly timer: NodeJS.Timeout;
}

/** How far one rank is behind in posting receives for what another sends it. */
class SendWindow {
  readonly #from: number;
  readonly #to: number;
  #behind = 0;
  readonly #waiters: Waiter[] = [];

  constructor(from: number, to: number) {
    this.#from = from;
    this.#to = to;
  }

  sent(key: number, timeoutMs: number): Promise<void> | undefined {
    if (++this.#behind <= sendWindow) return undefined;
    const room = Promise.withResolvers<void>();
    const awaited = `a receive, to send ${describeKey(key)},`;
    const late = new WaitTimeoutError(this.#from, this.#to, awaited, timeoutMs);
    this.#waiters.push({ room, timer: setTimeout(() => room.reject(late), timeoutMs) });
    return room.promise;
  }

  posted(): void {
    if (--this.#behind === sendWindow) this.#end(({ room }) => room.resolve());
  }

  fail(error: Error): void {
    this.#end(({ room }) => room.reject(error));
  }

  #end(settle: (waiter: Waiter) => void): void {
    for (const waiter of this.#waiters.splice(0)) {
      clearTimeout(waiter.timer);
      settle(waiter);
    }
  }
}

/** Connects ranks of one event loop. */
export class InProcessNetwork {
  readonly numRanks: number;
  readonly #options: InProcessOptions;
  readonly #mailboxes: readonly Mailbox[];
  /** By sender and receiver. */
  readonly #windows: readonly (readonly SendWindow[])[];
  /** Messages sent and bytes copied so far. */
  readonly sent: { messages: number; bytes: number } = { messages: 0, bytes: 0 };

  constructor(options: InProcessOptions) {
    this.numRanks = options.numRanks;
    this.#options = options;
    this.#mailboxes = Array.from(
      { length: options.numRanks },
      (_, rank) => new Mailbox(rank, options.numRanks),
    );
    this.#windows = this.#mailboxes.map((_, from) =>
      this.#mailboxes.map((_, to) => new SendWindow(from, to)),
    );
  }

  /** The end of one rank. */
  transport(rank: number): Transport {
    const mailbox = this.#mailboxes[rank] as Mailbox;
    return {
      rank,
      numRanks: this.numRanks,
      send: (to, key, tensors, timeoutMs) => {
        this.#send(rank, to, key, tensors);
        return this.#windows[rank]?.[to]?.sent(key, timeoutMs);
      },
      receive: (from, key): Receive => {
        this.#windows[from]?.[rank]?.posted();
        return {
          poll: () => mailbox.take(from, key),
          wait: async (timeoutMs) => mailbox.wait(from, key, timeoutMs),
        };
      },
      abort: (error) => this.#abort(rank, error),
    };
  }

  /**
   * The rank is gone, as if its machine had stopped: all ranks fail with a RankLostError inside.
   */
  lose(rank: number): void {
    this.#abort(rank, new RankLostError(rank, "it was taken from the network"));
  }

  #send(from: number, to: number, key: number, tensors: readonly Tensor[]): void {
    const failure = this.#mailboxes[from]?.failure;
    if (failure !== undefined) throw failure;
    const message = copyMessage(tensors);
    this.sent.messages++;
    for (const { byteLength } of tensors) this.sent.bytes += byteLength;
    if (this.#options.drop?.(from, to, key)) return;
    let turns = this.#options.delayTurns?.(from, to, key) ?? 0;
    const turn = (): void => {
      if (turns-- > 0) setImmediate(turn);
      else this.#mailboxes[to]?.deliver(from, key, message);
    };
    turn();
  }

  #abort(by: number, error: Error): void {
    const wrapped = new PipelineAbortedError(by, { cause: error });
    for (const mailbox of this.#mailboxes) mailbox.fail(wrapped);
    for (const window of this.#windows.flat()) window.fail(wrapped);
  }
}
