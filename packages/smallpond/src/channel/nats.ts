// The channel over NATS JetStream: a job's queues are subjects of one work-queue stream, stored on
// the server's disk; each queue has one durable consumer, which all processes that take from it
// share. The server may be killed and started again: senders repeat under the same message id,
// messages whose acknowledgement it lost come again and are told by their id. Beats are plain NATS
// messages, not stored.

import { setTimeout as sleep } from "node:timers/promises";
import {
  AckPolicy,
  type JetStreamClient,
  type JetStreamManager,
  jetstream,
  jetstreamManager,
  RetentionPolicy,
  StorageType,
} from "@nats-io/jetstream";
import type { NatsConnection, Subscription } from "@nats-io/transport-node";
import { ChannelError } from "../errors.ts";
import type { Channel, ConsumeOptions, Consumer, Delivery } from "./channel.ts";
import { LargeBodies } from "./large-bodies.ts";
import { connectNats, type NatsOptions, namedNatsError, whereIs } from "./nats-connect.ts";
import { NatsConsumer } from "./nats-consumer.ts";

/** Where a job's channel is on a server. */
export interface NatsPlace {
  /** Of the job and this run of it; letters, digits, `_` and `-`. */
  readonly space: string;
  /** Folder for bodies that are too large for the server. */
  readonly largeFolder: string;
  /** The driver makes the stream and removes it; executors use it. */
  readonly owner: boolean;
}

const secondNs = 1e9;
const daySeconds = 86_400;
/** Left of `max_payload` for headers and the reference's own form. */
const headerBytes = 4_096;
const retryMs = 100;
const requestMs = 2_000;

/** See the head of this file. */
export class NatsChannel implements Channel {
  readonly name: string;
  readonly #place: NatsPlace;
  readonly #connection: NatsConnection;
  readonly #client: JetStreamClient;
  readonly #manager: JetStreamManager;
  readonly #bodies: LargeBodies;
  readonly #stream: string;
  readonly #subject: string;
  readonly #consumers = new Set<Consumer>();
  readonly #sending = new Map<string, Promise<void>>();
  #down: string | undefined;
  #open = true;

  private constructor(
    name: string,
    place: NatsPlace,
    connection: NatsConnection,
    manager: JetStreamManager,
  ) {
    this.name = name;
    this.#place = place;
    this.#connection = connection;
    this.#manager = manager;
    this.#client = jetstream(connection, { timeout: requestMs });
    this.#bodies = new LargeBodies(place.largeFolder);
    this.#stream = streamOf(place.space);
    this.#subject = `open-infra.smallpond.${place.space}`;
    void this.#watchConnection();
  }

  /** @throws ChannelError `unreachable`, `credentials`, `tls`, `no-jetstream`, `permission` */
  static async open(options: NatsOptions, place: NatsPlace): Promise<NatsChannel> {
    const where = whereIs(options);
    const connection = await connectNats(options, `open-infra smallpond ${place.space}`);
    try {
      const manager = await jetstreamManager(connection, { timeout: requestMs });
      const channel = new NatsChannel(where, place, connection, manager);
      if (place.owner) await channel.#makeStream(options);
      return channel;
    } catch (error) {
      await connection.close();
      throw namedNatsError(error, where);
    }
  }

  get trouble(): string | undefined {
    return this.#down;
  }

  async send(queue: string, id: string, body: string): Promise<void> {
    if (!this.#open) throw this.#closed();
    const earlier = this.#sending.get(queue) ?? Promise.resolve();
    // One after another: a repeated one must not come behind its successor.
    const sent = earlier.then(() => this.#publish(queue, id, body));
    this.#sending.set(
      queue,
      sent.catch(() => {}),
    );
    await sent;
  }

  async consume(
    queue: string,
    take: (delivery: Delivery) => void,
    { inFlight = 256, leaseMs = 30_000 }: ConsumeOptions = {},
  ): Promise<Consumer> {
    const make = async (): Promise<void> => {
      await this.#manager.consumers.add(this.#stream, {
        durable_name: queue,
        filter_subject: this.#queueSubject(queue),
        ack_policy: AckPolicy.Explicit,
        ack_wait: leaseMs * 1e6,
        max_deliver: -1,
        max_ack_pending: -1,
      });
    };
    await this.#withServer(make);
    const consumer = new NatsConsumer({
      connection: this.#connection,
      // Made again if it was dropped meanwhile.
      get: async () => {
        await make();
        return await this.#client.consumers.get(this.#stream, queue);
      },
      bodies: this.#bodies,
      take,
      inFlight,
      leaseMs,
    });
    consumer.start();
    this.#consumers.add(consumer);
    return consumer;
  }

  beat(from: string, body: string): void {
    // A beat in a buffer for a server that is away would only be late.
    if (this.#down !== undefined || !this.#open) return;
    try {
      this.#connection.publish(`${this.#subject}.beat.${from}`, body);
    } catch {
      // The next one says the same.
    }
  }

  async watch(take: (from: string, body: string) => void): Promise<Consumer> {
    const prefix = `${this.#subject}.beat.`;
    const subscription: Subscription = this.#connection.subscribe(`${prefix}*`, {
      callback: (error, message) => {
        if (error === null) take(message.subject.slice(prefix.length), message.string());
      },
    });
    await this.#connection.flush();
    return { close: async () => subscription.unsubscribe() };
  }

  async drop(queue: string): Promise<void> {
    const filter = this.#queueSubject(queue);
    await this.#manager.streams.purge(this.#stream, { filter }).catch(() => {});
    await this.#manager.consumers.delete(this.#stream, queue).catch(() => {});
  }

  async close(): Promise<void> {
    if (!this.#open) return;
    this.#open = false;
    await Promise.all([...this.#consumers].map((consumer) => consumer.close()));
    // A server that is away has nothing to be told.
    if (this.#down === undefined) {
      await Promise.race([this.#connection.flush().catch(() => {}), sleep(requestMs)]);
      if (this.#place.owner) await this.#manager.streams.delete(this.#stream).catch(() => {});
    }
    await this.#connection.close();
  }

  async #makeStream({ replicas = 1, storage = "file" }: NatsOptions): Promise<void> {
    await this.#manager.streams.add({
      name: this.#stream,
      subjects: [`${this.#subject}.queue.>`],
      retention: RetentionPolicy.Workqueue,
      storage: storage === "file" ? StorageType.File : StorageType.Memory,
      num_replicas: replicas,
      duplicate_window: 120 * secondNs,
      // Of a driver that was killed nothing stays for ever.
      max_age: 7 * daySeconds * secondNs,
    });
  }

  async #publish(queue: string, id: string, body: string): Promise<void> {
    const maxBytes = (this.#connection.info?.max_payload ?? 2 ** 20) - headerBytes;
    const small = await this.#bodies.shrink(id, body, maxBytes);
    await this.#withServer(async () => {
      await this.#client.publish(this.#queueSubject(queue), small, {
        msgID: id,
        timeout: requestMs,
      });
    });
  }

  /** Repeats a request while the server is away or not ready. @throws ChannelError for refusals */
  async #withServer(request: () => Promise<void>): Promise<void> {
    for (;;) {
      if (this.#connection.isClosed()) throw this.#closed();
      try {
        await request();
        return;
      } catch (error) {
        const named = namedNatsError(error, this.name);
        // The server has spoken, or we did not mean to go on.
        const refused = named.reason === "permission" || isRefusal(error);
        if (refused || !this.#open || this.#connection.isClosed()) throw named;
        await sleep(retryMs);
      }
    }
  }

  async #watchConnection(): Promise<void> {
    for await (const status of this.#connection.status()) {
      if (status.type === "disconnect") this.#down = `${this.name} is away`;
      else if (status.type === "reconnect") this.#down = undefined;
    }
  }

  #queueSubject(queue: string): string {
    return `${this.#subject}.queue.${queue}`;
  }

  #closed(): ChannelError {
    return new ChannelError("closed", this.name, "the channel was closed");
  }
}

/** A job's stream on the server. */
export function streamOf(space: string): string {
  return `OPEN_INFRA_SMALLPOND_${space}`;
}

/** JetStream's own answers, other than that it is not ready yet. */
function isRefusal(error: unknown): boolean {
  const { code, status } = error as { readonly code?: unknown; readonly status?: unknown };
  const number = Number(status ?? code);
  return number >= 400 && number < 500 && number !== 408;
}
