// Whoever starts ranks, as their host: answers their rendezvous, collects how each ended, and sees
// that all end once one has failed. How a rank is started, heard and killed is an Endpoint's
// matter.

import { hostname } from "node:os";
import { deserializeError, InputError } from "@open-infra/errors";
import { type Channel, serveStore } from "./channel.ts";
import { Control } from "./control.ts";
import { rankErrors } from "./error-classes.ts";
import {
  GroupAbortedError,
  GroupClosedError,
  GroupError,
  RankDeadError,
  RankTimeoutError,
} from "./errors.ts";
import { controlKey } from "./join.ts";
import { MemoryStore } from "./memory-store.ts";
import { RanksNative } from "./native.ts";
import type { EndRequest, RankReport } from "./rank-run.ts";
import { Region, type RegionName } from "./region.ts";

/** A thread or a process with one or several ranks. */
export interface Endpoint {
  readonly ranks: readonly number[];
  /** For errors: `thread of process 4711`. */
  readonly name: string;
  readonly channel: Channel;
  /** Ends it by force. */
  kill(): void;
  /** How it ended: `with code 1`, `by SIGKILL`. */
  readonly ended: Promise<string>;
}

/** How ranks are run. */
export interface HostOptions {
  readonly size: number;
  readonly signal?: AbortSignal | undefined;
  /** A failed rank's result is undefined and the others go on. */
  readonly goesOn: boolean;
}

/** Others that see a death say more about it than the host can, so they are given this long. */
const noticeMs = 1000;
/** How long ranks have to end by themselves once they have been told to. */
const graceMs = 3000;

interface Failure {
  readonly rank: number;
  readonly error: unknown;
  /** Only the host has seen it: the thread or process is gone. */
  readonly isExit: boolean;
}

/** The host of one run. */
export class RankHost {
  readonly #options: HostOptions;
  readonly #store = new MemoryStore();
  readonly #endpoints: Endpoint[] = [];
  readonly #results: unknown[];
  readonly #pending: Set<number>;
  readonly #failures: Failure[] = [];
  readonly #timers: NodeJS.Timeout[] = [];
  #told = false;

  constructor(options: HostOptions) {
    const { size } = options;
    this.#options = options;
    this.#results = Array.from({ length: size }, () => undefined);
    this.#pending = new Set(this.#results.keys());
  }

  /** Starts to listen to a rank's thread or process. */
  add(endpoint: Endpoint): void {
    this.#endpoints.push(endpoint);
    serveStore(endpoint.channel, this.#store);
    endpoint.channel.listen((message) => {
      const report = message as RankReport;
      if (typeof report?.rank === "number") this.#report(report, endpoint.name);
    });
    void endpoint.ended.then((how) => this.#endpointEnded(endpoint, how));
  }

  /** Results by rank once all have ended. @throws the first cause */
  async finish(): Promise<unknown[]> {
    const { signal, goesOn } = this.#options;
    const onAbort = (): void => this.#fail({ rank: -1, error: signal?.reason, isExit: false }, 0);
    if (signal?.aborted) onAbort();
    signal?.addEventListener("abort", onAbort, { once: true });
    try {
      await Promise.all(this.#endpoints.map(({ ended }) => ended));
      // What they said before they ended has been heard by now, or after one more turn.
      await new Promise((resolve) => setImmediate(resolve));
    } finally {
      signal?.removeEventListener("abort", onAbort);
      for (const timer of this.#timers) clearTimeout(timer);
      for (const { channel } of this.#endpoints) channel.close();
    }
    const all = this.#failures.length === this.#options.size;
    if (this.#failures.length > 0 && (!goesOn || all || signal?.aborted)) throw this.#cause();
    return this.#results;
  }

  /** Ends everything, for whoever could not start all. */
  async destroy(): Promise<void> {
    for (const endpoint of this.#endpoints) endpoint.kill();
    await Promise.all(this.#endpoints.map(({ ended }) => ended));
  }

  #report({ rank, result, error, exit }: RankReport, name: string): void {
    if (exit !== undefined) this.#rankEnded(rank, `a thread of ${name}`, exit);
    if (!this.#pending.delete(rank)) return;
    if (error === undefined) this.#results[rank] = result;
    else this.#fail({ rank, error: deserializeError(error, rankErrors), isExit: false }, 0);
    // Timers or sockets of theirs must not keep ranks that are done.
    if (this.#pending.size === 0) this.#killLater(graceMs);
  }

  #endpointEnded({ ranks, name }: Endpoint, how: string): void {
    // A message that was sent before the end may come after it.
    setImmediate(() => {
      for (const rank of ranks) this.#rankEnded(rank, name, how);
    });
  }

  #rankEnded(rank: number, name: string, how: string): void {
    if (!this.#pending.delete(rank)) return;
    const text = `rank ${rank} (${hostname()}, ${name}) ended ${how}`;
    const facts = { rank: -1, peer: rank, operation: "", awaited: "its result", waitedMs: 0 };
    this.#fail({ rank, error: new RankDeadError(text, facts), isExit: true }, noticeMs);
  }

  #fail(failure: Failure, tellAfterMs: number): void {
    this.#failures.push(failure);
    const { rank, error } = failure;
    const text = error instanceof Error ? error.message : String(error);
    this.#store.fail(rank, text);
    if (this.#told || (this.#options.goesOn && rank >= 0)) return;
    this.#told = true;
    const tell = (): void => this.#endAll(rank, text);
    if (tellAfterMs === 0) tell();
    else this.#timers.push(setTimeout(tell, tellAfterMs));
  }

  /** The ranks' waits end by the control region, their JavaScript by a message, else by force. */
  #endAll(culprit: number, text: string): void {
    this.#abortGroups(culprit, text);
    const request: EndRequest = { endRanks: text };
    for (const { channel } of this.#endpoints) channel.post(request);
    this.#killLater(graceMs);
  }

  #abortGroups(culprit: number, text: string): void {
    let native: RanksNative | undefined;
    for (let rank = 0; rank < this.#options.size; rank++) {
      const name = this.#store.peek(controlKey(rank));
      if (name === undefined) continue;
      try {
        native ??= new RanksNative();
        using region = Region.open(native, JSON.parse(name) as RegionName);
        new Control(native, region, this.#options.size).abort(1, culprit, -1, text);
      } catch {
        // Its maker has gone, and with it whoever could have been told.
      }
    }
  }

  #killLater(ms: number): void {
    const kill = (): void => {
      for (const endpoint of this.#endpoints) endpoint.kill();
    };
    this.#timers.push(setTimeout(kill, ms));
  }

  /**
   * What ended the run: the first failure that is not only the echo of another. Of a rank's end its
   * peers know what they were in and waited for, so theirs is preferred to the bare exit.
   */
  #cause(): unknown {
    const { signal } = this.#options;
    if (signal?.aborted) return signal.reason;
    const isEcho = ({ error }: Failure): boolean => error instanceof GroupAbortedError;
    let first = this.#failures.find((failure) => !isEcho(failure)) ?? this.#failures[0];
    // Others may wait in vain for a rank that has thrown but whose disposal waits for them in turn.
    if (first?.error instanceof RankTimeoutError) first = this.#ownError() ?? first;
    if (!(first?.error instanceof RankDeadError)) return first?.error;
    const { peer } = first.error;
    // It closed its windows on the way out with an error of its own.
    const own = this.#ownError();
    if (own?.rank === peer) return own.error;
    const exit = this.#failures.find(({ isExit, rank }) => isExit && rank === peer);
    const witness = this.#failures.find(
      ({ error, isExit }) => !isExit && error instanceof RankDeadError && error.peer === peer,
    );
    const error = (witness?.error ?? first.error) as RankDeadError;
    if (witness === undefined || exit === undefined) return error;
    error.message = `${error.message}; ${(exit.error as Error).message}`;
    return error;
  }

  /** What a rank threw that is not about another rank. */
  #ownError(): Failure | undefined {
    const isAboutRanks = (error: unknown): boolean =>
      error instanceof GroupError || error instanceof GroupClosedError;
    return this.#failures.find(
      ({ error, isExit }) =>
        !isExit && !isAboutRanks(error) && !isAboutRanks((error as Error | undefined)?.cause),
    );
  }
}

/** @throws InputError */
export function expectSize(size: number): void {
  if (Number.isInteger(size) && size >= 1) return;
  throw new InputError("size", `${size}`, "an integer of at least 1");
}
