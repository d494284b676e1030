// That a process does not outlive whoever started it, even if that one is killed and this one is in
// a native wait: the system itself sends the signal (PR_SET_PDEATHSIG). A pipe that the child
// watches would do on other systems, but needs a thread in every process that is never in the way
// of anything else; there, the end of the channel to the parent is noticed when the event loop is
// free, and waits for other ranks end by their timeouts.

import koffi from "koffi";

const setDeathSignal = 1;
const sigkill = 9;

/** From now on this process is killed when `parent`, or its thread that started it, ends. */
export function endWithParent(parent: number): void {
  if (process.platform !== "linux" || process.ppid !== parent) return;
  const prctl = koffi.load(null).func("int prctl(int, ulong, ulong, ulong, ulong)");
  prctl(setDeathSignal, sigkill, 0, 0, 0);
  // It may have ended in between.
  if (process.ppid !== parent) process.kill(process.pid, "SIGKILL");
}
