// Ranks of a group (@open-infra/ranks): threads, processes of one host, or hosts. Tensors go as the
// group's messages; gradients of the two copies of a stage are added up by hfreduce.

import { InputError } from "@open-infra/errors";
import { allreduceMany, type HfReduce, openReducer } from "@open-infra/hfreduce";
import { type Group, GroupError, type Window } from "@open-infra/ranks";
import { byteSize, type DType, HostStorage, Tensor } from "@open-infra/tensor";
import { PipelineAbortedError, WaitTimeoutError } from "./errors.ts";
import { Mailbox } from "./mailbox.ts";
import {
  describeKey,
  type Message,
  type Receive,
  sendWindow,
  type Transport,
} from "./transport.ts";

/** A tag that no user of the group is likely to choose. */
const messageTag = 0x6470;
const alignment = 64;
/** Turns of the event loop that a wait takes before it sleeps, and how long it then sleeps. */
const eagerTurns = 50;
const napMs = 1;

const aligned = (bytes: number): number => Math.ceil(bytes / alignment) * alignment;

/** What stands before the tensors of a message, as JSON after its length. */
interface Head {
  readonly key: number;
  readonly tensors: readonly { readonly dtype: DType; readonly shape: readonly number[] }[];
}

/** A message as bytes: nothing of the tensors is needed afterwards. */
function encodeMessage(key: number, tensors: readonly Tensor[]): Uint8Array {
  const head: Head = { key, tensors: tensors.map(({ dtype, shape }) => ({ dtype, shape })) };
  const text = new TextEncoder().encode(JSON.stringify(head));
  let bytes = aligned(4 + text.length);
  const places = tensors.map(({ byteLength }) => {
    const at = bytes;
    bytes += aligned(byteLength);
    return at;
  });
  const message = new Uint8Array(bytes);
  new DataView(message.buffer).setUint32(0, text.length, true);
  message.set(text, 4);
  tensors.forEach((tensor, i) => {
    message.set(tensor.bytes(), places[i] as number);
  });
  return message;
}

/** The tensors again, over the message's own memory. */
function decodeMessage(bytes: Uint8Array<ArrayBuffer>): { key: number; message: Message } {
  const { buffer, byteOffset } = bytes;
  const length = new DataView(buffer, byteOffset).getUint32(0, true);
  const text = new TextDecoder().decode(bytes.subarray(4, 4 + length));
  const { key, tensors } = JSON.parse(text) as Head;
  const storages: HostStorage[] = [];
  let at = aligned(4 + length);
  const views = tensors.map(({ dtype, shape }) => {
    const size = byteSize(
      dtype,
      shape.reduce((product, dim) => product * dim, 1),
    );
    const storage = new HostStorage(new Uint8Array(buffer, byteOffset + at, size));
    at += aligned(size);
    storages.push(storage);
    return new Tensor({ dtype, shape, storage });
  });
  const release = (): void => {
    for (const storage of storages) storage[Symbol.dispose]();
  };
  return { key, message: { tensors: views, release } };
}

/**
 * One rank's end over a group. The group's own `timeoutMs` bounds how long a receiver may take
 * nothing out of a full ring; everything else waits as long as the pipeline says.
 */
export class RanksTransport implements Transport {
  readonly rank: number;
  readonly numRanks: number;
  readonly group: Group;
  /** Flag `r`: receives that rank `r` has posted for what this rank sends. */
  readonly #window: Window;
  readonly #mailbox: Mailbox;
  readonly #sent: number[];
  #cause: Error | undefined;
  #reducer: { readonly peer: number; readonly reducer: HfReduce } | undefined;

  private constructor(group: Group, window: Window) {
    this.group = group;
    this.rank = group.rank;
    this.numRanks = group.size;
    this.#window = window;
    this.#mailbox = new Mailbox(group.rank, group.size);
    this.#sent = new Array<number>(group.size).fill(0);
  }

  /** All ranks of the group do so together, once for each group. */
  static async open(group: Group): Promise<RanksTransport> {
    const window = await group.openWindow({ name: "dualpipe", bytes: 64, flags: group.size });
    return new RanksTransport(group, window);
  }

  send(
    to: number,
    key: number,
    tensors: readonly Tensor[],
    timeoutMs: number,
  ): Promise<void> | undefined {
    return this.#guarded(() => {
      // What goes wrong later is the group's failure, and every later call says so.
      this.group.send(to, messageTag, encodeMessage(key, tensors)).catch(() => {});
      (this.#sent[to] as number)++;
      return this.#hasRoom(to) ? undefined : this.#room(to, key, timeoutMs);
    });
  }

  receive(from: number, key: number): Receive {
    this.#window.signalAdd(from, this.rank, 1);
    return {
      poll: () => this.#poll(from, key),
      wait: (timeoutMs) => {
        const look = (): Message | undefined => this.#poll(from, key);
        return this.#until(look, from, () => describeKey(key), timeoutMs);
      },
    };
  }

  abort(error: Error): void {
    this.#cause ??= error;
    this.group.abort(error.message);
  }

  /**
   * Adds up tensors with those that `peer` brings to the same call, in place and to the same bits
   * on both; by hfreduce. All ranks of the group call it together, each pair for itself, and every
   * time with the same peer.
   *
   * @throws InputError for another peer than before; the group's failure.
   */
  async addUp(peer: number, tensors: readonly Tensor[]): Promise<void> {
    if (this.#reducer === undefined) {
      const members = [this.rank, peer].sort((a, b) => a - b);
      const reducer = await openReducer(this.group, { name: "dualpipe-gradients", members });
      this.#reducer = { peer, reducer };
    }
    if (this.#reducer.peer !== peer) {
      throw new InputError("peer", `${peer}`, `${this.#reducer.peer}, as before`);
    }
    const event = this.#guarded(() =>
      allreduceMany((this.#reducer as { reducer: HfReduce }).reducer, tensors),
    );
    await event.finished();
  }

  /** Lets go of what it holds of the group; all ranks call it together. */
  close(): void {
    this.#reducer?.reducer.close();
    this.#reducer = undefined;
    this.group.closeWindow(this.#window);
  }

  #poll(from: number, key: number): Message | undefined {
    return this.#guarded(() => {
      this.#drain(from);
      return this.#mailbox.take(from, key);
    });
  }

  /** Takes in what is here, and moves on what waits to be sent. */
  #drain(from: number): void {
    for (;;) {
      const bytes = this.group.tryRecv(from, messageTag);
      if (bytes === undefined) return;
      const { key, message } = decodeMessage(bytes);
      this.#mailbox.deliver(from, key, message);
    }
  }

  #hasRoom(to: number): boolean {
    return (this.#sent[to] as number) - this.#window.flag(to) <= sendWindow;
  }

  async #room(to: number, key: number, timeoutMs: number): Promise<void> {
    const look = (): true | undefined =>
      this.#guarded(() => {
        // The receiver may be waiting for the rest of a message that did not fit into its ring.
        this.#drain(to);
        return this.#hasRoom(to) || undefined;
      });
    await this.#until(look, to, () => `a receive, to send ${describeKey(key)},`, timeoutMs);
  }

  async #until<T>(
    look: () => T | undefined,
    from: number,
    awaited: () => string,
    timeoutMs: number,
  ): Promise<T> {
    const deadline = performance.now() + timeoutMs;
    for (let turns = 0; ; turns++) {
      const found = look();
      if (found !== undefined) return found;
      if (performance.now() >= deadline) {
        throw new WaitTimeoutError(this.rank, from, awaited(), timeoutMs);
      }
      await new Promise<void>((resolve) => {
        if (turns < eagerTurns) setImmediate(resolve);
        else setTimeout(resolve, napMs);
      });
    }
  }

  /** The group's failures are the pipeline's end, by the rank that is to blame. */
  #guarded<T>(work: () => T): T {
    try {
      this.group.check();
      return work();
    } catch (error) {
      if (!(error instanceof GroupError)) throw error;
      const own = error.peer === this.rank && this.#cause !== undefined;
      throw new PipelineAbortedError(error.peer, { cause: own ? this.#cause : error });
    }
  }
}
