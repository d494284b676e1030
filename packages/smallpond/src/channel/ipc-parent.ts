// The parent's end of the channel over pipes: it has the queues, children ask it.

import type { ChildProcess } from "node:child_process";
import type { Channel, ConsumeOptions, Consumer, Delivery } from "./channel.ts";
import { awakeMs, type Frame, isFrame } from "./ipc-frames.ts";
import { QueueBroker, type Subscription } from "./queue-broker.ts";

type Watcher = (from: string, body: string) => void;

interface ChildEnd {
  readonly child: ChildProcess;
  readonly subscriptions: Map<number, { readonly subscription: Subscription; leaseMs: number }>;
  heardMs: number;
  watches: boolean;
}

/** See the head of this file. */
export class IpcParent implements Channel {
  readonly name = "ipc";
  readonly trouble = undefined;
  readonly #broker = new QueueBroker();
  readonly #children = new Set<ChildEnd>();
  readonly #watchers = new Set<Watcher>();
  readonly #timer: NodeJS.Timeout;
  #checkedMs: number = performance.now();

  constructor() {
    this.#timer = setInterval(() => this.#findFrozen(), awakeMs);
    this.#timer.unref();
  }

  /** Serves a child that was forked with a pipe. */
  attach(child: ChildProcess): void {
    const end: ChildEnd = {
      child,
      subscriptions: new Map(),
      heardMs: performance.now(),
      watches: false,
    };
    this.#children.add(end);
    child.on("message", (message) => {
      if (isFrame(message)) this.#take(end, message);
    });
    const gone = (): void => {
      if (!this.#children.delete(end)) return;
      for (const { subscription } of end.subscriptions.values()) subscription.close();
    };
    child.once("exit", gone);
    child.once("disconnect", gone);
  }

  async send(queue: string, id: string, body: string): Promise<void> {
    this.#broker.send(queue, id, body);
  }

  async consume(
    queue: string,
    take: (delivery: Delivery) => void,
    { inFlight = 256 }: ConsumeOptions = {},
  ): Promise<Consumer> {
    const subscription = this.#broker.subscribe(queue, inFlight, (item, to) =>
      take({ ...item, ack: async () => to.ack(item.id) }),
    );
    return { close: async () => subscription.close() };
  }

  beat(from: string, body: string): void {
    this.#spread(undefined, from, body);
  }

  async watch(take: Watcher): Promise<Consumer> {
    this.#watchers.add(take);
    return { close: async () => void this.#watchers.delete(take) };
  }

  async drop(queue: string): Promise<void> {
    this.#broker.drop(queue);
  }

  async close(): Promise<void> {
    clearInterval(this.#timer);
    this.#watchers.clear();
    for (const { subscriptions } of this.#children) {
      for (const { subscription } of subscriptions.values()) subscription.close();
    }
    this.#children.clear();
  }

  #take(end: ChildEnd, frame: Frame): void {
    end.heardMs = performance.now();
    for (const { subscription } of end.subscriptions.values()) subscription.resume();
    if (frame.op === "send") this.#broker.send(frame.queue, frame.id, frame.body);
    else if (frame.op === "ack") end.subscriptions.get(frame.consumer)?.subscription.ack(frame.id);
    else if (frame.op === "consume") this.#subscribe(end, frame);
    else if (frame.op === "cancel") {
      end.subscriptions.get(frame.consumer)?.subscription.close();
      end.subscriptions.delete(frame.consumer);
    } else if (frame.op === "watch") end.watches = true;
    else if (frame.op === "drop") this.#broker.drop(frame.queue);
    else if (frame.op === "beat") this.#spread(end, frame.from, frame.body);
  }

  #subscribe(end: ChildEnd, frame: Extract<Frame, { op: "consume" }>): void {
    const { consumer, queue, inFlight, leaseMs } = frame;
    const subscription = this.#broker.subscribe(queue, inFlight, ({ id, body, redelivered }) =>
      tell(end.child, { op: "deliver", consumer, id, body, redelivered }),
    );
    end.subscriptions.set(consumer, { subscription, leaseMs });
  }

  #spread(source: ChildEnd | undefined, from: string, body: string): void {
    if (source !== undefined) for (const watcher of this.#watchers) watcher(from, body);
    for (const end of this.#children) {
      if (end !== source && end.watches) tell(end.child, { op: "beat", from, body });
    }
  }

  /** Leases run out while this process is awake; a pause of its own is nobody's silence. */
  #findFrozen(): void {
    const nowMs = performance.now();
    const pausedMs = Math.max(0, nowMs - this.#checkedMs - 2 * awakeMs);
    this.#checkedMs = nowMs;
    for (const end of this.#children) {
      end.heardMs += pausedMs;
      for (const { subscription, leaseMs } of end.subscriptions.values()) {
        if (nowMs - end.heardMs < leaseMs || subscription.paused) continue;
        subscription.paused = true;
        subscription.giveBack();
      }
    }
  }
}

function tell(child: ChildProcess, frame: Frame): void {
  // A pipe that breaks here is noticed as the child's end.
  if (child.connected) child.send(frame, () => {});
}
