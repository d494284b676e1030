// The shared disk of a simulated job: results by key, renamed into place once.

import type { ResultStore } from "../../src/scheduler/outputs.ts";
import type { TaskResult } from "../../src/task/task.ts";

export class SimStore implements ResultStore {
  readonly root = "/job";
  readonly #results = new Map<string, TaskResult>();
  readonly #atStart: Set<string>;

  /** @param earlier Results of a run before this one. */
  constructor(earlier: readonly TaskResult[] = []) {
    for (const result of earlier) this.#results.set(result.key, result);
    this.#atStart = new Set(this.#results.keys());
  }

  finished(key: string, fresh: boolean): TaskResult | undefined {
    if (!fresh && !this.#atStart.has(key)) return undefined;
    const result = this.#results.get(key);
    // As `JobFolder.finished`: what points at files that are gone is removed.
    if (result === undefined || this.isIntact(result)) return result;
    this.#results.delete(key);
    return undefined;
  }

  /** Whether every file of a result is there. */
  isIntact({ outputs }: Pick<TaskResult, "outputs">): boolean {
    return outputs.every(({ parts }) =>
      parts.every(({ path }) => this.#results.has(this.ownerOf(path) as string)),
    );
  }

  /** As `JobFolder.commit`: the first one counts. */
  commit(result: TaskResult): TaskResult {
    const earlier = this.#results.get(result.key);
    if (earlier === undefined) this.#results.set(result.key, result);
    return earlier ?? result;
  }

  remove(key: string): void {
    this.#results.delete(key);
  }

  has(key: string): boolean {
    return this.#results.has(key);
  }

  get results(): readonly TaskResult[] {
    return [...this.#results.values()];
  }

  ownerOf(path: string): string | undefined {
    return /^\/job\/output\/([^/]+)\//.exec(path)?.[1];
  }

  abandoned(): void {}
}
