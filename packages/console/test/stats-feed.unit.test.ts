// The connection to the statistics: what it says in each situation, and that it comes back.

import { describe, expect, it } from "vitest";
import { ApiError, type ApiErrorKind } from "../web/src/api/errors.ts";
import { type FeedState, StatsFeed } from "../web/src/api/stats-feed.ts";
import type { StatsMessage } from "../web/src/api/wire.ts";
import { sampleStats } from "./helpers/sample-stats.ts";

/** What one connection does: some messages, then an error, an end, or silence until aborted. */
interface Connection {
  readonly messages?: number;
  readonly error?: ApiErrorKind;
  readonly silent?: boolean;
}

/** Plays connections one after another, and collects states until one satisfies `until`. */
async function watch(
  connections: readonly Connection[],
  until: (states: readonly FeedState[]) => boolean,
  act: (feed: StatsFeed, states: readonly FeedState[]) => void = () => undefined,
): Promise<{ readonly states: readonly FeedState[]; readonly messages: number }> {
  let opened = 0;
  let messages = 0;
  const states: FeedState[] = [];
  async function* statsStream(signal: AbortSignal): AsyncGenerator<StatsMessage, void, void> {
    const connection = connections[Math.min(opened++, connections.length - 1)];
    for (let sent = 0; sent < (connection?.messages ?? 0); sent++) yield sampleStats();
    if (connection?.error) throw new ApiError("scripted", { kind: connection.error });
    if (connection?.silent) {
      await new Promise<void>((_, reject) => {
        signal.addEventListener("abort", () => reject(signal.reason), { once: true });
      });
    }
  }
  const { promise, resolve } = Promise.withResolvers<void>();
  const feed = new StatsFeed({
    client: { statsStream },
    retryMs: 2,
    retryMsMax: 4,
    silenceMs: 30,
    onMessage: () => messages++,
    onState: (state) => {
      states.push(state);
      // Not from inside the constructor, where the feed is not there yet.
      queueMicrotask(() => act(feed, states));
      if (until(states)) resolve();
    },
  });
  await promise;
  feed.close();
  return { states, messages };
}

const phases = (states: readonly FeedState[]): string[] => states.map((state) => state.phase);
const sawLive = (states: readonly FeedState[]): boolean => states.at(-1)?.phase === "live";

describe("StatsFeed", () => {
  it("waits for a server that is still loading, then is live", async () => {
    const { states } = await watch(
      [{ error: "unavailable" }, { error: "unavailable" }, { messages: 1, silent: true }],
      sawLive,
    );
    expect(phases(states)).toEqual(["connecting", "loading", "loading", "live"]);
  });

  it("comes back after the server went away, pausing longer each time", async () => {
    const { states } = await watch(
      [
        { messages: 2 },
        { error: "unreachable" },
        { error: "unreachable" },
        { messages: 1, silent: true },
      ],
      (seen) => phases(seen).filter((phase) => phase === "live").length === 2,
    );
    expect(phases(states)).toEqual(["connecting", "live", "away", "away", "away", "live"]);
    const pauses = states.flatMap((state) => (state.phase === "away" ? [state.retrySeconds] : []));
    expect(pauses).toEqual([0.002, 0.004, 0.004]);
  });

  it("takes a silent stream for lost", async () => {
    const { states } = await watch([{ messages: 1, silent: true }], (seen) =>
      phases(seen).includes("away"),
    );
    expect(states.at(-1)).toMatchObject({ phase: "away", message: "The server has gone silent." });
  });

  it("waits for a key instead of asking again, and takes reconnect for one", async () => {
    const { states } = await watch(
      [{ error: "unauthorized" }, { messages: 1, silent: true }],
      sawLive,
      (feed, seen) => seen.at(-1)?.phase === "unauthorized" && feed.reconnect(),
    );
    expect(phases(states)).toEqual(["connecting", "unauthorized", "live"]);
  });

  it("says when a server has no statistics", async () => {
    const { states } = await watch([{ error: "rejected" }], (seen) => seen.length === 2);
    expect(states.at(-1)).toEqual({ phase: "unsupported", message: "scripted" });
  });

  it("hands on every message", async () => {
    const { messages } = await watch([{ messages: 5 }, { silent: true }], (seen) =>
      phases(seen).includes("away"),
    );
    expect(messages).toBe(5);
  });
});
