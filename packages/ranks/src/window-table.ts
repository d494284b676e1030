// The windows that a group has open: how ranks agree on one, map each other's memory, and let go.

import { InputError } from "@open-infra/errors";
import type { LinkKind } from "./group-options.ts";
import type { Link } from "./link.ts";
import type { RanksNative } from "./native.ts";
import { Region } from "./region.ts";
import { checkWindow, Window, type WindowOptions, windowRegionBytes } from "./window.ts";
import { expectSameWindow, type WindowCard } from "./window-card.ts";

/** What the table needs of its group. */
export interface WindowHost {
  readonly native: RanksNative;
  /** The native `oi_group`. */
  readonly address: number;
  readonly rank: number;
  readonly links: readonly LinkKind[];
  readonly link: Link | undefined;
  describe(rank: number): string;
  /** Throws the group's failure. */
  check(): void;
  /** Ends the group for what this rank has found; returns the error to throw. */
  fail(error: unknown): unknown;
  /** The name of what the rank's thread is in. */
  operation(): number;
}

/** Everybody's text, by rank; empty for ranks that are not there. */
export type ExchangeText = (text: string) => Promise<readonly string[]>;

/** Windows by name. */
export class WindowTable {
  readonly #host: WindowHost;
  readonly #open = new Map<string, Window>();
  #opened = 0;

  constructor(host: WindowHost) {
    this.#host = host;
  }

  /**
   * Opens a window with the other ranks, who all do so in the same order.
   *
   * @throws InputError, RankMismatchError, RanksSystemError
   */
  async open(options: WindowOptions, exchange: ExchangeText): Promise<Window> {
    checkWindow(options);
    if (this.#open.has(options.name)) {
      throw new InputError("name", options.name, "a name that no open window has");
    }
    const { native, address: group, rank, links } = this.#host;
    const number = this.#opened++;
    const regions: (Region | undefined)[] = links.map(() => undefined);
    let window: Window;
    try {
      await this.#map(options, regions, exchange);
      window = new Window({
        ...{ native, group, number, rank, options, regions },
        isSystem: number === 0,
        onFailure: () => this.#host.check(),
        operation: () => this.#host.operation(),
      });
    } catch (error) {
      const failure = this.#host.fail(error);
      for (const region of regions) region?.[Symbol.dispose]();
      throw failure;
    }
    this.#host.link?.register(number, window, regions[rank] as Region);
    this.#open.set(options.name, window);
    // Nobody writes before all have mapped it, and nobody lets go before that.
    await exchange("");
    return window;
  }

  /** Makes this rank's region and maps those of ranks that share memory. */
  async #map(
    options: WindowOptions,
    regions: (Region | undefined)[],
    exchange: ExchangeText,
  ): Promise<void> {
    const { native, rank, links } = this.#host;
    const { name, bytes, flags = 0 } = options;
    const own = Region.create(native, windowRegionBytes(options, this.#host.links.length));
    regions[rank] = own;
    const card: WindowCard = { name, bytes, flags, region: own.name };
    const texts = await exchange(JSON.stringify(card));
    const cards = texts.map((text) => (text === "" ? undefined : (JSON.parse(text) as WindowCard)));
    // All are compared before any is mapped: whoever finds a difference lets go of its own.
    for (const [peer, theirs] of cards.entries()) {
      if (theirs === undefined) continue;
      expectSameWindow(card, theirs, rank, peer, (each) => this.#host.describe(each));
    }
    for (const [peer, theirs] of cards.entries()) {
      const isMapped = links[peer] === "heap" || links[peer] === "shm";
      if (theirs !== undefined && peer !== rank && isMapped) {
        regions[peer] = Region.open(native, theirs.region);
      }
    }
  }

  /** Lets go of a window that every rank is done with. */
  close(window: Window): void {
    this.#host.link?.unregister(window);
    this.#open.delete(window.name);
    window[Symbol.dispose]();
  }

  /** Tells the peers that nothing more comes from this rank in any window but the system's. */
  farewell(): void {
    const [, ...windows] = this.#open.values();
    for (const window of windows) window.farewell();
  }

  /** Lets go of all, whoever may still write into them over a link that has ended. */
  closeAll(): void {
    for (const window of this.#open.values()) window[Symbol.dispose]();
    this.#open.clear();
  }
}
