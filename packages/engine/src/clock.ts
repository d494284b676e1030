// The clock that the client and the worker share, for times that begin on one thread and end on
// the other.

/** Milliseconds since 1970, with fractions; monotonic within a process. */
export function nowMs(): number {
  return performance.timeOrigin + performance.now();
}
