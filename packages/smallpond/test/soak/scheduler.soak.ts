// The scheduler in simulated jobs, seed after seed, for a long time. scheduler.unit.test.ts runs
// the first of them.

import type { SoakOptions } from "@open-infra/testing";
import { simulate } from "../sim/simulate.ts";

/** Seeds between two lines of progress. */
const batch = 2000;

/** Runs until the time is over. @throws at the first violation, with its seed */
export async function soak({ seed, minutes, log }: SoakOptions): Promise<void> {
  const end = performance.now() + minutes * 60_000;
  for (let next = seed; performance.now() < end; ) {
    let [events, virtualMs] = [0, 0];
    for (const last = next + batch; next < last; next++) {
      const outcome = await simulate(next >>> 0);
      events += outcome.events;
      virtualMs += outcome.virtualMs;
    }
    log(`seeds to ${next}: ${events} events in ${Math.round(virtualMs / 60_000)} virtual minutes`);
  }
}
