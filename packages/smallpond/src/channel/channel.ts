// How scheduler and executors talk: named queues that hand each message to one consumer, and
// beats, which may get lost. Three implementations (pipes to child processes, files, NATS) pass
// one contract suite; who sends what is above this.

/** A message in the hands of one consumer. */
export interface Delivery {
  readonly id: string;
  readonly body: string;
  /** Somebody had it before and did not acknowledge it. */
  readonly redelivered: boolean;
  /** It is done with; until then it may be given to another, once this process is silent. */
  ack(): Promise<void>;
}

/** How a consumer takes. */
export interface ConsumeOptions {
  /** Messages handed out and not acknowledged. @default 256 */
  readonly inFlight?: number;
  /** Messages of a process that is silent for so long go to another. @default 30 s */
  readonly leaseMs?: number;
}

/** Messages that arrive. */
export interface Consumer {
  /** Takes no more; what was handed out and not acknowledged goes back. */
  close(): Promise<void>;
}

/**
 * One process's end of a job's queues. Messages of one sender to one queue arrive in the order of
 * `send`, each at one consumer, and again at another only if the first one ends or freezes before
 * it acknowledges.
 */
export interface Channel {
  /** What it is, for people: `nats://host:4222`. */
  readonly name: string;
  /** Why nothing gets through at the moment; undefined while it does. */
  readonly trouble: string | undefined;
  /**
   * Resolves once the message is where the end of this process does not lose it.
   *
   * @param id Unique; a message sent twice under one id arrives once.
   * @throws ChannelError
   */
  send(queue: string, id: string, body: string): Promise<void>;
  /** Hands each message to `take` as soon as it is there. */
  consume(
    queue: string,
    take: (delivery: Delivery) => void,
    options?: ConsumeOptions,
  ): Promise<Consumer>;
  /** Says that somebody is there; only the latest matters, and it may get lost. */
  beat(from: string, body: string): void;
  /** Beats of the others. */
  watch(take: (from: string, body: string) => void): Promise<Consumer>;
  /** Throws away what lies in a queue whose consumer is gone. */
  drop(queue: string): Promise<void>;
  close(): Promise<void>;
}

/** The last ids of a sender's messages, to tell what comes twice. */
export class SeenIds {
  readonly #limit: number;
  readonly #ids = new Set<string>();

  constructor(limit = 100_000) {
    this.#limit = limit;
  }

  has(id: string): boolean {
    return this.#ids.has(id);
  }

  add(id: string): void {
    this.#ids.add(id);
    if (this.#ids.size <= this.#limit) return;
    for (const oldest of this.#ids) {
      this.#ids.delete(oldest);
      return;
    }
  }
}

/** Queues' and senders' names go into files' names and subjects. */
export const plainName: RegExp = /^[A-Za-z0-9_+-]+$/;
