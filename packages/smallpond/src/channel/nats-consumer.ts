// Takes messages of one queue from JetStream: pulls as many as may be in hand, renews the lease of
// those while this process lives, tells redelivered ones that it has or had. Part of the NATS
// channel.

import { setTimeout as sleep } from "node:timers/promises";
import type { ConsumerMessages, JsMsg, Consumer as PullConsumer } from "@nats-io/jetstream";
import type { NatsConnection } from "@nats-io/transport-node";
import { type Consumer, type Delivery, SeenIds } from "./channel.ts";
import type { LargeBodies } from "./large-bodies.ts";

/** What one consumer works with. */
export interface NatsConsumerOptions {
  readonly connection: NatsConnection;
  readonly get: () => Promise<PullConsumer>;
  readonly bodies: LargeBodies;
  readonly take: (delivery: Delivery) => void;
  readonly inFlight: number;
  readonly leaseMs: number;
}

const retryMs = 100;
const ackMs = 2_000;
/** A pull that no server knows any more (it was killed) is noticed after this at the latest. */
const pullMs = 5_000;

/** See the head of this file. */
export class NatsConsumer implements Consumer {
  readonly #options: NatsConsumerOptions;
  /** The latest delivery of each message in hand: the one to acknowledge. */
  readonly #inHand = new Map<string, JsMsg>();
  readonly #seen = new SeenIds();
  readonly #acks = new Set<Promise<void>>();
  #pull: ConsumerMessages | undefined;
  #room: (() => void) | undefined;
  #renewal: NodeJS.Timeout | undefined;
  #loop: Promise<void> = Promise.resolve();
  #open = true;

  constructor(options: NatsConsumerOptions) {
    this.#options = options;
  }

  start(): void {
    this.#renewal = setInterval(() => {
      for (const message of this.#inHand.values()) message.working();
    }, this.#options.leaseMs / 3);
    this.#renewal.unref();
    this.#loop = this.#run();
    void this.#watchServer();
  }

  async close(): Promise<void> {
    if (!this.#open) return;
    this.#open = false;
    clearInterval(this.#renewal);
    this.#pull?.stop();
    this.#room?.();
    await this.#loop;
    await Promise.race([Promise.all(this.#acks), sleep(ackMs)]);
    for (const message of this.#inHand.values()) {
      if (!this.#options.connection.isClosed()) message.nak();
    }
    this.#inHand.clear();
  }

  async #run(): Promise<void> {
    let consumer: PullConsumer | undefined;
    while (this.#open) {
      const room = this.#options.inFlight - this.#inHand.size;
      if (room <= 0) {
        await new Promise<void>((resolve) => {
          this.#room = resolve;
        });
        continue;
      }
      try {
        consumer ??= await this.#options.get();
        this.#pull = await consumer.fetch({ max_messages: room, expires: pullMs });
        for await (const message of this.#pull) {
          if (this.#open) await this.#take(message);
          else message.nak();
        }
      } catch {
        // The server is away or has not recovered yet.
        consumer = undefined;
        if (this.#options.connection.isClosed()) return;
        await sleep(retryMs);
      }
    }
  }

  async #take(message: JsMsg): Promise<void> {
    const id = message.headers?.get("Nats-Msg-Id") ?? String(message.seq);
    if (this.#inHand.has(id)) {
      // The server took this process for frozen; it goes on with what it has.
      this.#inHand.set(id, message);
      return;
    }
    const reference = message.string();
    const body = this.#seen.has(id) ? undefined : await this.#options.bodies.grow(reference);
    if (body === undefined) {
      this.#acknowledge(message);
      return;
    }
    this.#inHand.set(id, message);
    const ack = async (): Promise<void> => {
      const latest = this.#inHand.get(id);
      if (latest === undefined) return;
      this.#inHand.delete(id);
      this.#seen.add(id);
      this.#room?.();
      await this.#options.bodies.forget(reference);
      await this.#acknowledge(latest);
    };
    this.#options.take({ id, body, redelivered: message.redelivered, ack });
  }

  /** Once; if the server does not hear it, the message comes again and is known by its id. */
  #acknowledge(message: JsMsg): Promise<void> {
    const ack = message
      .ackAck({ timeout: ackMs })
      .then(() => {})
      .catch(() => {});
    this.#acks.add(ack);
    return ack.finally(() => this.#acks.delete(ack));
  }

  /** A server that was started again knows nothing of pulls. */
  async #watchServer(): Promise<void> {
    for await (const status of this.#options.connection.status()) {
      if (!this.#open) return;
      if (status.type === "reconnect") this.#pull?.stop();
    }
  }
}
