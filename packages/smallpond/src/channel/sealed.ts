// A channel whose messages carry a code that only the job's own processes can make: tasks are
// programs, so whoever could slip one in would run what they like on every executor. The code binds
// a message to its queue and id. It hides nothing; TLS does that.

import { createHmac, timingSafeEqual } from "node:crypto";
import type { Channel, ConsumeOptions, Consumer, Delivery } from "./channel.ts";

const codeLength = 43;

/** See the head of this file. */
export class SealedChannel implements Channel {
  readonly #inner: Channel;
  readonly #secret: string;
  readonly #onForged: (where: string) => void;

  /**
   * @param secret Known to the job's processes only.
   * @param onForged Told of each message that was thrown away.
   */
  constructor(inner: Channel, secret: string, onForged: (where: string) => void = () => {}) {
    this.#inner = inner;
    this.#secret = secret;
    this.#onForged = onForged;
  }

  get name(): string {
    return this.#inner.name;
  }

  get trouble(): string | undefined {
    return this.#inner.trouble;
  }

  async send(queue: string, id: string, body: string): Promise<void> {
    await this.#inner.send(queue, id, this.#seal(`queue/${queue}/${id}`, body));
  }

  async consume(
    queue: string,
    take: (delivery: Delivery) => void,
    options?: ConsumeOptions,
  ): Promise<Consumer> {
    const open = (delivery: Delivery): void => {
      const body = this.#open(`queue/${queue}/${delivery.id}`, delivery.body);
      if (body !== undefined) take({ ...delivery, body, ack: () => delivery.ack() });
      else {
        this.#onForged(`a message to ${queue}`);
        void delivery.ack().catch(() => {});
      }
    };
    return await this.#inner.consume(queue, open, options);
  }

  beat(from: string, body: string): void {
    this.#inner.beat(from, this.#seal(`beat/${from}`, body));
  }

  async watch(take: (from: string, body: string) => void): Promise<Consumer> {
    return await this.#inner.watch((from, sealed) => {
      const body = this.#open(`beat/${from}`, sealed);
      if (body === undefined) this.#onForged(`a beat of ${from}`);
      else take(from, body);
    });
  }

  async drop(queue: string): Promise<void> {
    await this.#inner.drop(queue);
  }

  async close(): Promise<void> {
    await this.#inner.close();
  }

  #code(context: string, body: string): Buffer {
    return createHmac("sha256", this.#secret).update(`${context}\n`).update(body).digest();
  }

  #seal(context: string, body: string): string {
    return this.#code(context, body).toString("base64url") + body;
  }

  #open(context: string, sealed: string): string | undefined {
    const body = sealed.slice(codeLength);
    const code = Buffer.from(sealed.slice(0, codeLength), "base64url");
    const right = this.#code(context, body);
    return code.length === right.length && timingSafeEqual(code, right) ? body : undefined;
  }
}
