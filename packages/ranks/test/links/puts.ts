// A rank of the link tests: random puts between all pairs, checked by the receiver byte for byte.

import type { Group, Window } from "@open-infra/ranks";
import { seededRandom } from "@open-infra/testing";

export interface PutsWork {
  readonly seed: number;
  readonly rounds: number;
  readonly largest: number;
}

/** Sizes around what is treated differently: nothing, inline, direct, several pieces. */
function sizeOf(random: () => number, largest: number): number {
  const kinds = [0, 1, 7, 4096, 16_383, 16_384, 65_536, 1 << 20, (1 << 20) + 5, largest];
  const kind = kinds[Math.floor(random() * kinds.length)] as number;
  return Math.min(largest, random() < 0.5 ? kind : Math.floor(random() * (kind + 1)));
}

/** What the bytes of one put are, from its seed alone, so that the receiver can tell. */
function fill(bytes: Uint8Array, seed: number): void {
  let state = (seed * 2654435761) >>> 0;
  for (let i = 0; i < bytes.length; i++) {
    state = (Math.imul(state, 1664525) + 1013904223) >>> 0;
    bytes[i] = state >>> 24;
  }
}

interface Plan {
  readonly bytes: number;
  readonly offset: number;
  readonly seed: number;
}

/** What rank `from` puts to rank `to` in a round: the same on both. */
function planOf(work: PutsWork, round: number, from: number, to: number): readonly Plan[] {
  const random = seededRandom(work.seed * 7919 + round * 101 + from * 13 + to).next;
  return Array.from({ length: 1 + Math.floor(random() * 4) }, (_, i) => {
    const bytes = sizeOf(random, work.largest);
    const offset = Math.floor(random() * (work.largest - bytes + 1));
    return { bytes, offset, seed: round * 1000 + from * 100 + to * 10 + i };
  });
}

export default async function run(group: Group, work: PutsWork): Promise<number> {
  const { rank, size } = group;
  // Each sender has a place of its own in each receiver, for each of four puts of a round.
  const room = work.largest * 4;
  const window = await group.openWindow({ name: "puts", bytes: room * size, flags: 2 * size + 1 });
  const sources = Array.from({ length: size * 4 }, () => new Uint8Array(work.largest));
  let checked = 0;
  for (let round = 1; round <= work.rounds; round++) {
    for (let step = 1; step < size; step++) {
      const to = (rank + step) % size;
      for (const [i, { bytes, offset, seed }] of planOf(work, round, rank, to).entries()) {
        const source = (sources[to * 4 + i] as Uint8Array).subarray(0, bytes);
        fill(source, seed);
        window.put(to, room * rank + work.largest * i + offset, source);
      }
      window.signal(to, rank, round);
      window.signalAdd(to, 2 * size, 1);
    }
    checked += checkRound(window, group, work, round, room);
    const from = -1;
    window.wait(2 * size, round * (size - 1), { peer: from, awaited: "everybody's count" });
    // Receivers are done with the round before its places are written again.
    for (let step = 1; step < size; step++) {
      window.signal((rank + step) % size, size + rank, round);
    }
    for (let step = 1; step < size; step++) {
      const peer = (rank + step) % size;
      window.wait(size + peer, round, { peer, awaited: "the reader" });
    }
    group.flush();
  }
  group.closeWindow(window);
  return checked;
}

function checkRound(
  window: Window,
  { rank, size }: Group,
  work: PutsWork,
  round: number,
  room: number,
): number {
  let checked = 0;
  const expected = new Uint8Array(work.largest);
  for (let step = 1; step < size; step++) {
    const from = (rank + step) % size;
    window.wait(from, round, { peer: from, awaited: "the puts of a round" });
    for (const [i, { bytes, offset, seed }] of planOf(work, round, from, rank).entries()) {
      const at = room * from + work.largest * i + offset;
      const want = expected.subarray(0, bytes);
      fill(want, seed);
      if (Buffer.compare(window.data.subarray(at, at + bytes), want) !== 0) {
        throw new Error(`seed ${work.seed}, round ${round}: ${bytes} bytes from ${from} are wrong`);
      }
      checked += bytes;
    }
  }
  return checked;
}
