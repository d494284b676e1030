// The pool against looking through all slots, on random intervals.

import { seededRandom, testSeed } from "@open-infra/testing";
import { expect, it } from "vitest";
import { SlotPool } from "../src/analyze/slot-pool.ts";

it("gives the lowest slot that is free", () => {
  const random = seededRandom(testSeed());
  for (let round = 0; round < 100; round++) {
    const pool = new SlotPool();
    const freeUs: number[] = [];
    let now = 0;
    for (let i = 0; i < 200; i++) {
      now += random.int(0, 4);
      const until = now + random.int(0, 60);
      let slot = freeUs.findIndex((us) => us <= now);
      if (slot < 0) slot = freeUs.length;
      freeUs[slot] = until;
      expect(pool.take(now, until), `seed ${random.seed}, round ${round}`).toBe(slot);
    }
  }
});
