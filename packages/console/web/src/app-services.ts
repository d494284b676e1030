// What every page gets: the API client, the live statistics, the key, and a place to keep its own
// state while another page is shown. Made once in main.tsx and passed down; nothing here is global.

import { type ReadonlySignal, type Signal, signal } from "@preact/signals";
import { ApiClient } from "./api/client.ts";
import { type FeedState, StatsFeed } from "./api/stats-feed.ts";
import { type Sample, StatsHistory } from "./api/stats-history.ts";
import type { StatsMessage } from "./api/wire.ts";

const KEY_ITEM = "open-infra-api-key";

/** The services of one running app. */
export class AppServices {
  readonly client: ApiClient;
  readonly #key: Signal<string> = signal(readKey());
  readonly #feed: StatsFeed;
  readonly #feedState: Signal<FeedState> = signal({ phase: "connecting" });
  readonly #latest: Signal<StatsMessage | null> = signal(null);
  readonly #samples: Signal<readonly Sample[]> = signal([]);
  readonly #kept: Map<string, unknown> = new Map();

  constructor(baseUrl: string) {
    this.client = new ApiClient({ baseUrl, apiKey: () => this.#key.peek() });
    const history = new StatsHistory();
    this.#feed = new StatsFeed({
      client: this.client,
      onState: (state) => {
        this.#feedState.value = state;
      },
      onMessage: (message) => {
        history.add(message, performance.now() / 1000);
        this.#latest.value = message;
        this.#samples.value = history.samples;
      },
    });
  }

  /** How the app and the server stand to each other. */
  get feedState(): ReadonlySignal<FeedState> {
    return this.#feedState;
  }

  /** The newest statistics; kept while the server is away. */
  get latest(): ReadonlySignal<StatsMessage | null> {
    return this.#latest;
  }

  /** Five minutes of statistics, collected whichever page is shown. */
  get samples(): ReadonlySignal<readonly Sample[]> {
    return this.#samples;
  }

  /** The bearer key, or "". */
  get apiKey(): ReadonlySignal<string> {
    return this.#key;
  }

  /** Keeps the key for this tab's session and tries the server with it. */
  setApiKey(key: string): void {
    this.#key.value = key;
    try {
      if (key === "") sessionStorage.removeItem(KEY_ITEM);
      else sessionStorage.setItem(KEY_ITEM, key);
    } catch {
      // Storage can be forbidden; then the key lasts until the page is reloaded.
    }
    this.reconnect();
  }

  /** Tries to reach the server at once. */
  reconnect(): void {
    this.#feed.reconnect();
  }

  /** A page's own state: made on the first visit, found again on the next. */
  keep<T>(name: string, create: new (services: AppServices) => T): T {
    const kept = this.#kept.get(name);
    if (kept instanceof create) return kept;
    const created = new create(this);
    this.#kept.set(name, created);
    return created;
  }
}

function readKey(): string {
  try {
    return sessionStorage.getItem(KEY_ITEM) ?? "";
  } catch {
    return "";
  }
}
