// Where executors report: the driver's queue and their beats, each brought to its executor's
// handle. An executor that nobody announced, because a launcher started it somewhere, joins when
// it is ready.

import type { Channel, Consumer, Delivery } from "../channel/channel.ts";
import { type ExecutorIdentity, queueOf, RemoteExecutor } from "./handle.ts";
import type { FromExecutor, ToExecutor } from "./protocol.ts";

/** The queue of what executors say. */
export const driverQueue = "driver";
/** The name of the driver's beats. */
export const driverName = "driver";

const beatMs = 500;

/** What an executor sends, with who it is. */
export interface Report {
  readonly from: string;
  readonly message: FromExecutor;
  /** With `ready`. */
  readonly pid?: number;
  readonly host?: string;
}

/** What the hub tells. */
export interface HubEvents {
  /** An executor that nobody announced is ready. */
  onJoin(handle: RemoteExecutor): void;
  /** One cannot be used. */
  onRefused(id: string, why: string): void;
}

/** See the head of this file. */
export class ExecutorHub {
  readonly #channel: Channel;
  readonly #engine: string;
  readonly #events: HubEvents;
  readonly #handles = new Map<string, RemoteExecutor>();
  readonly #told = new Set<string>();
  readonly #consumers: Consumer[] = [];
  #beat: NodeJS.Timeout | undefined;

  /** @param engine The version that executors must have, as it is part of tasks' keys. */
  constructor(channel: Channel, engine: string, events: HubEvents) {
    this.#channel = channel;
    this.#engine = engine;
    this.#events = events;
  }

  async start(): Promise<void> {
    const take = ({ body, ack }: Delivery): void => {
      this.#take(JSON.parse(body) as Report);
      void ack().catch(() => {});
    };
    this.#consumers.push(
      await this.#channel.consume(driverQueue, take),
      await this.#channel.watch((from, body) => this.#hearBeat(from, body)),
    );
    const beat = (): void => {
      this.#channel.beat(driverName, String(Date.now()));
      if (this.#channel.trouble === undefined) return;
      // While nothing gets through, nobody's silence means anything.
      for (const handle of this.#handles.values()) handle.hear({ alive: Date.now() });
    };
    beat();
    this.#beat = setInterval(beat, beatMs);
    this.#beat.unref();
  }

  /** Announces an executor: its handle is there before it is. */
  add(handle: RemoteExecutor): void {
    this.#handles.set(handle.id, handle);
    handle.onExit(() => this.#handles.delete(handle.id));
  }

  async close(): Promise<void> {
    clearInterval(this.#beat);
    await Promise.all(this.#consumers.map((consumer) => consumer.close()));
  }

  #take({ from, message, pid = 0, host = "" }: Report): void {
    let handle = this.#handles.get(from);
    if ("ready" in message) {
      if (message.engine !== this.#engine) {
        const why = `its DuckDB is ${message.engine}, the driver's ${this.#engine}`;
        this.#events.onRefused(from, why);
        handle?.kill();
        // Coming back would not help.
        if (handle === undefined) this.#sendAway(from, { shutdown: true });
        return;
      }
      handle ??= this.#join({ id: from, capacity: message.ready, pid, host });
    }
    if (handle === undefined) this.#sendAway(from);
    else handle.hear(message);
  }

  #join(identity: ExecutorIdentity): RemoteExecutor {
    const handle = new RemoteExecutor(this.#channel, identity);
    this.add(handle);
    this.#events.onJoin(handle);
    return handle;
  }

  #hearBeat(from: string, body: string): void {
    if (from === driverName) return;
    const handle = this.#handles.get(from);
    if (handle === undefined) this.#sendAway(from);
    else handle.hear(JSON.parse(body) as FromExecutor);
  }

  /** One that was taken for lost and is back: its tasks run elsewhere. It may join anew. */
  #sendAway(from: string, message: ToExecutor = { rejoin: true }): void {
    if (this.#told.has(from)) return;
    this.#told.add(from);
    void this.#channel.send(queueOf(from), `${from}-away`, JSON.stringify(message)).catch(() => {});
  }
}
