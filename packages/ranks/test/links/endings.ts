// A rank of the link tests: ways in which windows, waits and groups end.

import type { Group } from "@open-infra/ranks";

const describeError = (error: unknown): string =>
  error instanceof Error ? `${error.name}: ${error.message}` : String(error);

const bodies: Readonly<Record<string, (group: Group) => Promise<string>>> = {
  /** Puts much that nobody waits for, then closes; what is late must not hit other memory. */
  async stragglers(group) {
    const peer = 1 - group.rank;
    for (let round = 0; round < 5; round++) {
      const window = await group.openWindow({ name: "late", bytes: 8 << 20, flags: 1 });
      for (let i = 0; i < 4; i++) window.put(peer, i << 21, new Uint8Array(2 << 20).fill(9));
      group.flush();
      group.closeWindow(window);
      const next = await group.openWindow({ name: "next", bytes: 8 << 20, flags: 1 });
      if (next.data.some((byte) => byte !== 0)) throw new Error(`round ${round}: a late write`);
      group.closeWindow(next);
    }
    return "done";
  },

  async abort(group) {
    const window = await group.openWindow({ name: "abort", bytes: 8, flags: 1 });
    if (group.rank === 0) {
      await new Promise((resolve) => setTimeout(resolve, 200));
      group.abort("enough of it");
      return "aborted";
    }
    try {
      window.wait(0, 1, { peer: 0, awaited: "what never comes" });
    } catch (error) {
      return describeError(error);
    }
    return "no error";
  },

  async slow(group) {
    const window = await group.openWindow({ name: "slow", bytes: 8, flags: 1 });
    if (group.rank === 1) {
      group.begin("a long computation");
      // Longer than the timeout; the link beats meanwhile.
      await new Promise((resolve) => setTimeout(resolve, 2500));
      return "computed";
    }
    await new Promise((resolve) => setTimeout(resolve, 700));
    try {
      window.wait(0, 1, { peer: 1, awaited: "its result" });
    } catch (error) {
      return describeError(error);
    }
    return "no error";
  },

  /** Many windows open and close while flags of others go on. */
  async windows(group) {
    const counts = await group.openWindow({ name: "counts", bytes: 0, flags: group.size });
    for (let round = 1; round <= 10; round++) {
      const window = await group.openWindow({ name: "round", bytes: 4096, flags: 1 });
      const to = (group.rank + 1) % group.size;
      const from = (group.rank + group.size - 1) % group.size;
      window.put(to, 0, new Uint8Array(4096).fill(round));
      counts.signal(to, group.rank, round);
      counts.wait(from, round, { peer: from, awaited: "a row" });
      // The put and the signal are of two windows; the order between them holds all the same.
      if (window.data.some((byte) => byte !== round)) throw new Error(`round ${round} is torn`);
      group.closeWindow(window);
    }
    return "done";
  },
};

export default async function run(group: Group, what: string): Promise<string> {
  const body = bodies[what];
  if (body === undefined) throw new Error(`no test is called ${what}`);
  return body(group);
}
