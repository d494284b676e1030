// Queues in memory: what each consumer has in hand, and to whom the next message goes. Whoever
// talks to consumers in other processes (ipc) tells it what they say.

import { SeenIds } from "./channel.ts";

/** A message of a queue. */
export interface Item {
  readonly id: string;
  readonly body: string;
  redelivered: boolean;
}

/** One consumer of a queue. */
export class Subscription {
  readonly queue: Queue;
  readonly inHand: Map<string, Item> = new Map();
  readonly inFlight: number;
  readonly deliver: (item: Item, to: Subscription) => void;
  /** Frozen: it gets nothing until it speaks again. */
  paused = false;

  constructor(queue: Queue, inFlight: number, deliver: (item: Item, to: Subscription) => void) {
    this.queue = queue;
    this.inFlight = inFlight;
    this.deliver = deliver;
  }

  ack(id: string): void {
    if (this.inHand.delete(id)) this.queue.flow();
  }

  resume(): void {
    if (!this.paused) return;
    this.paused = false;
    this.queue.flow();
  }

  /** Its messages go back to where they were, for others. */
  giveBack(): void {
    const items = [...this.inHand.values()];
    this.inHand.clear();
    this.queue.putBack(items);
  }

  close(): void {
    this.queue.subscriptions.delete(this);
    this.giveBack();
  }
}

/** Messages in order. */
class Queue {
  readonly subscriptions: Set<Subscription> = new Set();
  readonly #seen = new SeenIds();
  #waiting: Item[] = [];
  /** Items before it have gone out; cut off now and then. */
  #head = 0;

  add(id: string, body: string): void {
    if (this.#seen.has(id)) return;
    this.#seen.add(id);
    this.#waiting.push({ id, body, redelivered: false });
    this.flow();
  }

  /** Hands out what consumers have room for, to the one with the least in hand. */
  flow(): void {
    while (this.#head < this.#waiting.length) {
      let best: Subscription | undefined;
      for (const one of this.subscriptions) {
        if (one.paused || one.inHand.size >= one.inFlight) continue;
        if (best === undefined || one.inHand.size < best.inHand.size) best = one;
      }
      if (best === undefined) return;
      const item = this.#waiting[this.#head++] as Item;
      best.inHand.set(item.id, item);
      best.deliver(item, best);
    }
    this.#waiting = [];
    this.#head = 0;
  }

  putBack(items: readonly Item[]): void {
    if (items.length === 0) return;
    for (const item of items) item.redelivered = true;
    this.#waiting = [...items, ...this.#waiting.slice(this.#head)];
    this.#head = 0;
    this.flow();
  }

  clear(): void {
    this.#waiting = [];
    this.#head = 0;
    for (const one of this.subscriptions) one.inHand.clear();
  }
}

/** All queues of a job. */
export class QueueBroker {
  readonly #queues = new Map<string, Queue>();

  send(queue: string, id: string, body: string): void {
    this.#queue(queue).add(id, body);
  }

  subscribe(
    queue: string,
    inFlight: number,
    deliver: (item: Item, to: Subscription) => void,
  ): Subscription {
    const found = this.#queue(queue);
    const subscription = new Subscription(found, inFlight, deliver);
    found.subscriptions.add(subscription);
    found.flow();
    return subscription;
  }

  drop(queue: string): void {
    this.#queues.get(queue)?.clear();
    this.#queues.delete(queue);
  }

  #queue(name: string): Queue {
    let queue = this.#queues.get(name);
    if (queue === undefined) {
      queue = new Queue();
      this.#queues.set(name, queue);
    }
    return queue;
  }
}
