// What the controller counts and remembers for its metrics, in fixed memory.

import type { EplbReport } from "./controller-types.ts";

/** Balancedness of the last steps. */
export class BalanceLog {
  last = 1;
  readonly #ring: Float64Array;
  #added = 0;

  constructor(size: number) {
    this.#ring = new Float64Array(size);
  }

  add(balancedness: number): void {
    this.#ring[this.#added % this.#ring.length] = balancedness;
    this.#added++;
    this.last = balancedness;
  }

  /** Oldest first. */
  values(): number[] {
    const size = this.#ring.length;
    if (this.#added <= size) return Array.from(this.#ring.subarray(0, this.#added));
    const at = this.#added % size;
    return [...this.#ring.subarray(at), ...this.#ring.subarray(0, at)];
  }
}

/** Running totals. */
export class Tally {
  plansStarted = 0;
  plansCompleted = 0;
  plansAborted = 0;
  declined = 0;
  policyFailures = 0;
  retries = 0;
  staleAcks = 0;
  copiesIssued = 0;
  bytesIssued = 0;
  copiesCompleted = 0;
  lastRebalance: Extract<EplbReport, { event: "started" }> | undefined;

  note(report: EplbReport): void {
    if (report.event === "started") {
      this.plansStarted++;
      this.lastRebalance = report;
    } else if (report.event === "completed") this.plansCompleted++;
    else if (report.event === "aborted") this.plansAborted++;
    else if (report.event === "declined") this.declined++;
    else if (report.event === "policy-failed") this.policyFailures++;
    else if (report.event === "retried") this.retries++;
  }
}
