// For ranks that end at a chosen moment: when all others are where they shall be.

import type { Group } from "@open-infra/ranks";

/** Returns once every other rank is in an operation and waits, or after 10 s. */
export async function othersWaitIn(group: Group, operation: string): Promise<void> {
  const end = performance.now() + 10_000;
  const isThere = (rank: number): boolean => {
    const activity = group.activity(rank);
    return activity.operation === operation && activity.awaited !== -1;
  };
  for (;;) {
    const ranks = Array.from({ length: group.size }, (_, rank) => rank);
    const all = ranks.every((rank) => rank === group.rank || isThere(rank));
    if (all || performance.now() > end) return;
    await new Promise((resolve) => setTimeout(resolve, 10));
  }
}
