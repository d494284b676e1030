// A link as the rank's thread sees it: a worker that does the work, asked by messages. The requests
// that must be done before the rank goes on (a window is registered, a window is closed, an abort
// is out) block until the worker has answered; it never waits for the rank.

import { Worker } from "node:worker_threads";
import { deserializeError, InfraError } from "@open-infra/errors";
import type { Link, LinkStart } from "./link.ts";
import {
  type CarrierKind,
  type LinkReport,
  type LinkRequest,
  type LinkThreadStart,
  reasonBytes,
  reasonsOffset,
} from "./link-messages.ts";
import type { Region } from "./region.ts";
import { sourceArguments } from "./source-module.ts";
import type { Store } from "./store.ts";
import { PortInUseError, SecretRefusedError, UnreachableError } from "./tcp-errors.ts";
import { UcxError, UcxMissingError } from "./ucx-library.ts";
import type { Window } from "./window.ts";

/** What a link needs to know before there is a group. */
export interface OpenLinkOptions {
  readonly kind: CarrierKind;
  readonly rank: number;
  readonly size: number;
  /** Ranks to reach over the link. */
  readonly peers: readonly number[];
  /** All ranks, for errors. */
  readonly names: readonly string[];
  /** Which ranks are on this rank's host. */
  readonly sharesHost: readonly boolean[];
  readonly store: Store;
  /** The address that others reach this rank by. */
  readonly host: string;
  readonly secret: string;
  readonly timeoutMs: number;
  /** @default half the timeout, at least 3 s and at most 30 s */
  readonly silenceMs?: number;
  /** How long the link's thread stays awake after the last work. */
  readonly spinUs: number;
}

const errorClasses = [
  ...[UnreachableError, SecretRefusedError, PortInUseError, UcxError, UcxMissingError],
];

/** Opens the link's thread and connects it to its peers. @throws UnreachableError and others */
export async function openLink(options: OpenLinkOptions): Promise<WorkerLink> {
  const link = new WorkerLink(options);
  try {
    const { rank, peers, size, store, timeoutMs } = options;
    await store.set(`link/${rank}`, await link.listening());
    const cards: (string | undefined)[] = Array.from({ length: size }, () => undefined);
    await Promise.all(
      peers.map(async (peer) => {
        cards[peer] = await store.get(`link/${peer}`, { timeoutMs });
      }),
    );
    await link.connect(cards);
    return link;
  } catch (error) {
    await link.terminate();
    throw error;
  }
}

/** A link whose work is done by a thread of its own. */
export class WorkerLink implements Link {
  readonly #options: OpenLinkOptions;
  readonly #worker: Worker;
  readonly #acknowledged: Int32Array;
  readonly #shared: SharedArrayBuffer;
  readonly #numbers = new Map<Window, number>();
  readonly #waiting = new Map<LinkReport["report"], PromiseWithResolvers<LinkReport>>();
  #requests = 0;
  #failure: Error | undefined;
  #closed = false;
  #description = "";

  /** Use {@link openLink}. */
  constructor(options: OpenLinkOptions) {
    this.#options = options;
    const { size, timeoutMs } = options;
    this.#shared = new SharedArrayBuffer(reasonsOffset + size * reasonBytes);
    this.#acknowledged = new Int32Array(this.#shared, 0, 1);
    const { silenceMs = Math.max(3000, Math.min(timeoutMs / 2, 30_000)) } = options;
    const { kind, rank, peers, names, sharesHost, host, secret, spinUs } = options;
    const start: LinkThreadStart = {
      ...{ kind, rank, size, peers, names, sharesHost, host, secret, timeoutMs, silenceMs, spinUs },
      shared: this.#shared,
    };
    const { url, flags } = sourceArguments();
    this.#worker = new Worker(url("link-thread"), {
      name: `open-infra-link-${rank}`,
      workerData: start,
      ...(flags.length > 0 && { execArgv: flags }),
    });
    this.#worker.on("message", (message: LinkReport) => this.#hear(message));
    this.#worker.on("error", (error) => this.#fail(error as Error));
    this.#worker.on("exit", () => {
      if (!this.#closed) this.#fail(new InfraError("link-failed", "the link's thread has ended"));
    });
    // A rank that has nothing else to do may end; its link alone is no reason to stay.
    this.#worker.unref();
  }

  /** For people: `TCP`, or what UCX chose. */
  get description(): string {
    return this.#description;
  }

  /** Called once: this rank's card for its peers. */
  async listening(): Promise<string> {
    const { card, description } = (await this.#wait("listening")) as Extract<
      LinkReport,
      { report: "listening" }
    >;
    this.#description = description;
    return card;
  }

  /** Called once: connects to all peers. */
  async connect(cards: readonly (string | undefined)[]): Promise<void> {
    this.#post({ request: "connect", cards });
    await this.#wait("connected");
  }

  start({ group, control, outbox, eventFd }: LinkStart): void {
    const at = { control: control.address, group: group.address, outbox, eventFd };
    this.#ask({ request: "start", ...at });
  }

  register(number: number, window: Window, region: Region): void {
    this.#numbers.set(window, number);
    const { bytes, flagCount } = window;
    const place = { data: window.dataAddress(), bytes, flags: region.address, flagCount };
    this.#ask({ request: "register", number, ...place });
  }

  unregister(window: Window): void {
    const number = this.#numbers.get(window);
    if (number === undefined) return;
    this.#numbers.delete(window);
    this.#ask({ request: "unregister", number });
  }

  abort(code: number, culprit: number, reporter: number, text: string): void {
    this.#ask({ request: "abort", code, culprit, reporter, text }, 500);
  }

  reason(peer: number): string {
    const at = reasonsOffset + peer * reasonBytes;
    const bytes = new Uint8Array(this.#shared, at, reasonBytes).slice();
    return new TextDecoder().decode(bytes.subarray(0, bytes.indexOf(0)));
  }

  async close(): Promise<void> {
    if (this.#closed) return;
    if (this.#failure === undefined) {
      this.#post({ request: "close" });
      await this.#wait("closed").catch(() => {});
    }
    await this.terminate();
  }

  /** Ends the thread at once. */
  async terminate(): Promise<void> {
    this.#closed = true;
    await this.#worker.terminate();
  }

  #post(request: LinkRequest): void {
    this.#worker.postMessage(request);
  }

  /** Blocks until the worker has done it; if it cannot, its failure has ended the group. */
  #ask(request: LinkRequest, limitMs: number = this.#options.timeoutMs + 1000): void {
    if (this.#closed || this.#failure !== undefined) return;
    this.#post(request);
    this.#requests++;
    const end = performance.now() + limitMs;
    for (;;) {
      const done = Atomics.load(this.#acknowledged, 0);
      const left = end - performance.now();
      if (done >= this.#requests || left <= 0) return;
      Atomics.wait(this.#acknowledged, 0, done, left);
    }
  }

  async #wait(kind: LinkReport["report"]): Promise<LinkReport> {
    if (this.#failure !== undefined) throw this.#failure;
    const waiting = Promise.withResolvers<LinkReport>();
    this.#waiting.set(kind, waiting);
    this.#worker.ref();
    try {
      return await waiting.promise;
    } finally {
      this.#waiting.delete(kind);
      this.#worker.unref();
    }
  }

  #hear(message: LinkReport): void {
    if (message.report === "failed") {
      this.#fail(deserializeError(message.error, errorClasses));
      return;
    }
    this.#waiting.get(message.report)?.resolve(message);
  }

  #fail(error: Error): void {
    this.#failure ??= error;
    for (const { reject } of this.#waiting.values()) reject(this.#failure);
  }
}
