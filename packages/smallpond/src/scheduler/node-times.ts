// How long tasks of a node take, for telling stragglers: a histogram whose buckets grow by 4 %, so
// that adding is constant, asking costs the buckets, and nothing grows with the tasks.

import type { UsualTime } from "./stragglers.ts";

const growth = Math.log(1.04);
const bucketOf = (ms: number): number => Math.floor(Math.log(1 + Math.max(0, ms)) / growth);
const middleOf = (bucket: number): number => Math.exp((bucket + 0.5) * growth) - 1;

class Histogram {
  readonly #counts: number[] = [];
  #samples = 0;
  #usual: UsualTime | undefined;

  add(ms: number): void {
    const bucket = bucketOf(ms);
    while (this.#counts.length <= bucket) this.#counts.push(0);
    this.#counts[bucket] = (this.#counts[bucket] as number) + 1;
    this.#samples++;
    this.#usual = undefined;
  }

  get usual(): UsualTime {
    this.#usual ??= {
      samples: this.#samples,
      p50: this.#quantile(0.5),
      p95: this.#quantile(0.95),
      p99: this.#quantile(0.99),
    };
    return this.#usual;
  }

  #quantile(part: number): number {
    const rank = Math.min(this.#samples - 1, Math.floor(this.#samples * part));
    let seen = 0;
    for (const [bucket, count] of this.#counts.entries()) {
      seen += count;
      if (seen > rank) return middleOf(bucket);
    }
    return 0;
  }
}

/** Times by node. */
export class NodeTimes {
  readonly #nodes = new Map<string, Histogram>();

  add(node: string, elapsedMs: number): void {
    let histogram = this.#nodes.get(node);
    if (histogram === undefined) {
      histogram = new Histogram();
      this.#nodes.set(node, histogram);
    }
    histogram.add(elapsedMs);
  }

  /** Within 2 %; undefined before a task of the node is finished. */
  usual(node: string): UsualTime | undefined {
    return this.#nodes.get(node)?.usual;
  }
}
