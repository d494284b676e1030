// How both benches time a call.

/**
 * Best of repeated calls: the machine may be shared, and noise only adds. One thread's calls count
 * processor time, as the limits do; those of several count the clock, which other programs stretch.
 */
export function bestUs(call: () => void, seconds: number, threads: number): number {
  const now = (): number => {
    if (threads > 1) return performance.now() * 1e3;
    const { user, system } = process.cpuUsage(); // Exact in sum, guessed apart.
    return user + system;
  };
  call();
  let us = Number.POSITIVE_INFINITY;
  const end = performance.now() + seconds * 1e3;
  for (let n = 0; n < 3 || performance.now() < end; n++) {
    const start = now();
    call();
    us = Math.min(us, now() - start);
  }
  return us;
}
