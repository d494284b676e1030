// What ranks tell each other of a window they open, and whether they mean the same.

import { RankMismatchError } from "./errors.ts";
import type { RegionName } from "./region.ts";

/** A rank's part of a window, for the others. */
export interface WindowCard {
  readonly name: string;
  readonly bytes: number;
  readonly flags: number;
  readonly region: RegionName;
}

/** @throws RankMismatchError naming both ranks and what differs */
export function expectSameWindow(
  own: WindowCard,
  theirs: WindowCard,
  rank: number,
  peer: number,
  describe: (rank: number) => string,
): void {
  for (const field of ["name", "bytes", "flags"] as const) {
    if (own[field] === theirs[field]) continue;
    const awaited = `window ${own.name}`;
    const facts = { rank, peer, operation: "openWindow", awaited, waitedMs: 0 };
    throw new RankMismatchError(
      `window ${own.name}: ${field} is ${own[field]} on ${describe(rank)}, but ` +
        `${theirs[field]} on ${describe(peer)}; all ranks must agree`,
      facts,
    );
  }
}
