// What a session knows of its plans: which nodes several others use, whose data is there already,
// and the DuckDB that says what queries read. With it, plans are optimized so that what is shared
// is made once, whichever action asks first.

import { inputsOf, type PlanNode } from "../plan/node.ts";
import { ColumnAnalysis } from "../plan/optimize/analysis.ts";
import { type OptimizedPlan, optimize } from "../plan/optimize/optimize.ts";

/** Optimizes the plans of one session. */
export class PlanOptimizer {
  readonly #enabled: boolean;
  readonly #columns = new ColumnAnalysis();
  readonly #seen = new WeakSet<PlanNode>();
  readonly #users = new WeakMap<PlanNode, number>();
  readonly #finished = new WeakSet<PlanNode>();

  /** @param enabled With false, plans run as they are written. */
  constructor(enabled = true) {
    this.#enabled = enabled;
  }

  /** Takes note of a node that a user made, as a user of its inputs. */
  noteMade(node: PlanNode): void {
    if (this.#seen.has(node)) return;
    this.#seen.add(node);
    if (this.#enabled && node.kind !== "source") this.#columns.warm();
    for (const input of inputsOf(node)) {
      this.#users.set(input, (this.#users.get(input) ?? 0) + 1);
    }
  }

  /** Takes note that a node's data is there. */
  noteFinished(node: PlanNode): void {
    this.#finished.add(node);
  }

  /** The plan to run for a node. */
  async optimize(root: PlanNode): Promise<OptimizedPlan> {
    if (!this.#enabled) return { root, applied: new Map() };
    const isKept = (node: PlanNode): boolean =>
      (this.#users.get(node) ?? 0) > 1 || this.#finished.has(node);
    return await optimize(root, { columns: this.#columns, isKept });
  }

  close(): void {
    this.#columns.close();
  }
}
