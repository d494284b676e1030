// A rank of the link bench: signals to and fro, and streams of puts, between ranks 0 and 1.

import type { Group } from "@open-infra/ranks";

/** What rank 0 measures. */
export interface LinkTimes {
  /** Half a round trip of a signal alone, microseconds; median. */
  readonly signalUs: number;
  /** By bytes of a put: microseconds a put, several under way. */
  readonly streams: readonly { readonly bytes: number; readonly us: number }[];
}

export interface LinkWork {
  readonly rounds: number;
  readonly sizes: readonly number[];
  /** Bytes to send for each size. */
  readonly total: number;
}

/** Memory for what is under way; small puts have more of them there. */
const windowBytes = 64 << 20;

export default async function run(group: Group, work: LinkWork): Promise<LinkTimes> {
  const window = await group.openWindow({ name: "bench", bytes: windowBytes, flags: 4 });
  const source = new Uint8Array(windowBytes).fill(group.rank + 1);
  const peer = 1 - group.rank;
  const wait = (flag: number, value: number): void => {
    window.wait(flag, value, { peer, awaited: "the other end of the bench" });
  };
  const trips: number[] = [];
  for (let i = 1; i <= work.rounds; i++) {
    const start = performance.now();
    if (group.rank === 0) {
      window.signal(peer, 0, i);
      wait(0, i);
    } else {
      wait(0, i);
      window.signal(peer, 0, i);
    }
    trips.push((performance.now() - start) * 500);
  }
  let sent = 0;
  const streams = work.sizes.map((bytes) => {
    const count = Math.max(8, Math.min(20_000, Math.floor(work.total / bytes)));
    const depth = Math.min(64, windowBytes / bytes);
    const start = performance.now();
    for (let i = 0; i < count; i++) {
      const slot = (i % depth) * bytes;
      sent++;
      if (group.rank === 0) {
        // A slot is written again once the other end has seen what was there.
        wait(2, sent - depth);
        window.put(peer, slot, source.subarray(slot, slot + bytes));
        window.signal(peer, 1, sent);
      } else {
        wait(1, sent);
        window.signal(peer, 2, sent);
      }
    }
    if (group.rank === 0) wait(2, sent);
    return { bytes, us: ((performance.now() - start) * 1000) / count };
  });
  group.flush();
  group.closeWindow(window);
  trips.sort((a, b) => a - b);
  return { signalUs: trips[trips.length >> 1] as number, streams };
}
