// The browser's frames as a Scheduler; apart from frames.ts, which runs anywhere.

import type { Scheduler } from "./frames.ts";

/** Pause of the fallback: a hidden tab gets no animation frames, but its text must still arrive. */
const HIDDEN_MS = 250;

/** The next animation frame, or a quarter of a second later in a hidden tab. */
export const nextFrame: Scheduler = (run) => {
  let done = false;
  const once = (): void => {
    if (done) return;
    done = true;
    cancel();
    run();
  };
  const frame = requestAnimationFrame(once);
  const timer = setTimeout(once, HIDDEN_MS);
  const cancel = (): void => {
    done = true;
    cancelAnimationFrame(frame);
    clearTimeout(timer);
  };
  return cancel;
};
