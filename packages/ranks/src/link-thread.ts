// The thread of a rank's link: the rank's own thread may block in a native wait for as long as it
// likes, and bytes move all the same.

import { parentPort, workerData } from "node:worker_threads";
import { serializeError } from "@open-infra/errors";
import koffi from "koffi";
import { listenToEvent } from "./event-descriptor.ts";
import { type Carrier, LinkEngine } from "./link-engine.ts";
import type { LinkReport, LinkRequest, LinkThreadStart } from "./link-messages.ts";
import { RanksNative } from "./native.ts";
import { TcpCarrier } from "./tcp-carrier.ts";

const start = workerData as LinkThreadStart;
const port = parentPort as NonNullable<typeof parentPort>;
const acknowledged = new Int32Array(start.shared, 0, 1);
const engine = new LinkEngine(new RanksNative(), start);

function report(message: LinkReport): void {
  port.postMessage(message);
}

function acknowledge(): void {
  Atomics.add(acknowledged, 0, 1);
  Atomics.notify(acknowledged, 0);
}

let failed = false;
function fail(error: unknown): void {
  if (!failed) {
    // Whatever the reason, this rank can no longer be reached; nobody should wait for it.
    const text = `the link of ${start.names[start.rank]} failed: ${(error as Error)?.message}`;
    const reason = { code: 1, culprit: start.rank, reporter: start.rank, text };
    failed = true;
    engine.aborted(reason);
    engine.abort(reason);
  }
  report({ report: "failed", error: serializeError(error) });
}

process.on("uncaughtException", fail);

/** Sleeps until the outbox has something, then empties it. */
function watchOutbox(eventFd: number, carrier: Carrier): () => void {
  let open = true;
  let scheduled = false;
  let quietSince = 0;
  const again = (): void => {
    if (scheduled) return;
    scheduled = true;
    setImmediate(() => {
      scheduled = false;
      turn();
    });
  };
  /** koffi's callbacks do not run what sockets have put off to the next tick; an immediate does. */
  const wake = (): void => {
    turn();
    setImmediate(() => {});
  };
  const turn = (): void => {
    if (!open) return;
    const now = performance.now();
    if (engine.scan()) quietSince = now;
    const busy = carrier.poll?.() === true;
    if (busy) quietSince = now;
    if ((now - quietSince) * 1000 < start.spinUs) {
      again();
      return;
    }
    engine.outbox?.setIdle(true);
    if (engine.outbox?.hasMore || carrier.arm?.() === false) {
      engine.outbox?.setIdle(false);
      again();
    }
  };
  const posted = listenToEvent(eventFd, turn);
  const { wakeFd } = carrier;
  const woken =
    wakeFd === undefined ? undefined : koffi.node.poll(wakeFd, { readable: true }, wake);
  turn();
  return () => {
    open = false;
    posted.destroy();
    woken?.close();
  };
}

async function makeCarrier(): Promise<Carrier> {
  if (start.kind === "tcp") return new TcpCarrier(engine, start);
  const { UcxCarrier } = await import("./ucx-carrier.ts");
  return new UcxCarrier(engine, start);
}

async function main(): Promise<void> {
  const carrier = await makeCarrier();
  let stopWatching: (() => void) | undefined;

  async function connect(cards: readonly (string | undefined)[]): Promise<void> {
    await carrier.connect(cards);
    engine.connected(carrier);
    report({ report: "connected" });
  }

  async function close(): Promise<void> {
    stopWatching?.();
    await engine.close();
    report({ report: "closed" });
  }

  function handle(message: LinkRequest): void {
    switch (message.request) {
      case "connect":
        connect(message.cards).catch(fail);
        break;
      case "start":
        engine.begin(message.control, message.group, message.outbox);
        stopWatching = watchOutbox(message.eventFd, carrier);
        acknowledge();
        break;
      case "register":
        engine.windows.register(message.number, message);
        carrier.register(message.number, message.data, message.bytes);
        acknowledge();
        break;
      case "unregister":
        engine.unregister(message.number).then(acknowledge, fail);
        break;
      case "abort":
        engine.abort(message);
        acknowledge();
        break;
      case "close":
        close().catch(fail);
    }
  }

  port.on("message", handle);
  report({ report: "listening", card: await carrier.listen(), description: carrier.description });
}

main().catch(fail);
