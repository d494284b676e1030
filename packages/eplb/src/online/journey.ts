// A migration plan on its way: which step is out, which attempt at it, and since when.

import type { MoveRef, RebalanceReason } from "./controller-types.ts";
import type { MigrationPlan, MigrationStep } from "./migration.ts";

/** When a move counts as stalled. */
export interface MoveDeadline {
  readonly moveDeadlineSteps: number;
  readonly moveDeadlineUs: number;
}

/** Steps go out one by one; each is acknowledged, tried again, or the end of the journey. */
export class Journey {
  readonly plan: MigrationPlan;
  readonly id: number;
  readonly reason: RebalanceReason;
  #index = 0;
  #attempt = 0;
  #running = false;
  #startedStep = 0;
  #startedUs = 0;

  constructor(plan: MigrationPlan, id: number, reason: RebalanceReason) {
    this.plan = plan;
    this.id = id;
    this.reason = reason;
  }

  /** The attempt that is out, or the next one. */
  get ref(): MoveRef {
    return { plan: this.id, index: this.#index, attempt: this.#attempt };
  }

  /** The step that is out, or the next one. Not to be asked when done. */
  get step(): MigrationStep {
    return this.plan.steps[this.#index] as MigrationStep;
  }

  /** Whether a step is out and not acknowledged. */
  get running(): boolean {
    return this.#running;
  }

  get done(): boolean {
    return this.#index === this.plan.steps.length;
  }

  /** Whether `ref` names the attempt that is out. */
  isRunning(ref: MoveRef): boolean {
    return (
      this.#running &&
      ref.plan === this.id &&
      ref.index === this.#index &&
      ref.attempt === this.#attempt
    );
  }

  start(engineStep: number, timeUs: number): void {
    this.#running = true;
    this.#startedStep = engineStep;
    this.#startedUs = timeUs;
  }

  /** The step that was out has arrived. */
  advance(): void {
    this.#running = false;
    this.#index++;
    this.#attempt = 0;
  }

  /** The attempt that was out is given up; returns whether there may be another. */
  retry(maxRetries: number): boolean {
    if (this.#attempt >= maxRetries) return false;
    this.#running = false;
    this.#attempt++;
    return true;
  }

  /** How late the attempt that is out is, in words; undefined if it is not. */
  lateness(engineStep: number, timeUs: number, deadline: MoveDeadline): string | undefined {
    const steps = engineStep - this.#startedStep;
    const us = timeUs - this.#startedUs;
    if (!this.#running) return undefined;
    if (steps < deadline.moveDeadlineSteps && us < deadline.moveDeadlineUs) return undefined;
    return `not acknowledged within ${steps} steps, ${us} µs`;
  }
}
