// Counts answers by route, method and status. Routes are patterns, never the address a client sent,
// so that nobody can grow the table by asking for nonsense.

export interface HttpCount {
  readonly route: string;
  readonly method: string;
  readonly status: number;
  readonly count: number;
}

const METHODS = ["GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"];

export class HttpCounters {
  readonly #counts = new Map<string, HttpCount>();

  count(route: string, method: string, status: number): void {
    const known = METHODS.includes(method) ? method : "other";
    const key = `${known} ${status} ${route}`;
    const count = (this.#counts.get(key)?.count ?? 0) + 1;
    this.#counts.set(key, { route, method: known, status, count });
  }

  get counts(): HttpCount[] {
    return [...this.#counts.values()];
  }
}
