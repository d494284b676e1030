// The online controller: watches loads, decides when experts should move, and leads each migration
// step by step through acknowledgements, stalls and failing ranks. It starts no timer and copies no
// weights: time comes in with every call and what is to be done goes out as actions, so that the
// same code runs in an engine and in a simulation. Decisions are pure functions in trigger.ts,
// proposal.ts, survivors.ts and migration.ts; this class keeps what they need to know.

import { InputError } from "@open-infra/errors";
import type { Placement } from "../placement.ts";
import type { ResolvedOptions } from "./controller-options.ts";
import { initialSlots, resolveOptions } from "./controller-options.ts";
import type {
  EplbAction,
  EplbControllerOptions,
  EplbMetrics,
  EplbReport,
  MoveRef,
  RebalanceReason,
  StepInput,
} from "./controller-types.ts";
import { BalanceLog, Tally } from "./counters.ts";
import { Journey } from "./journey.ts";
import type { MigrationPlan } from "./migration.ts";
import { planMigration } from "./migration.ts";
import type { Proposal } from "./proposal.ts";
import { propose } from "./proposal.ts";
import type { SlotShape } from "./slots.ts";
import { balanceOfSlots, checkSlots, emptySlot, lostExperts, routeSlots } from "./slots.ts";
import { checkCounts, loadsFromSlots } from "./statistics.ts";
import { liveGpus, repairSlots } from "./survivors.ts";
import type { TriggerState } from "./trigger.ts";
import { afterCheck, isCheckDue, quiet, startTrigger } from "./trigger.ts";

/** The longest wait after plans that were aborted one after another, in cooldowns. */
const backoffMax = 64;

/**
 * Drives one model's experts on one cluster. Call `step` after every forward step and
 * `moveCompleted` when a move's copies have arrived, and do what the actions say, in order.
 *
 * At every moment `routing` names only slots whose weights are complete, and every expert that any
 * live slot holds has a slot in it.
 */
export class EplbController {
  readonly #options: ResolvedOptions;
  readonly #shape: SlotShape;
  readonly #held: Int32Array;
  readonly #failed = new Set<number>();
  readonly #log: BalanceLog;
  readonly #tally = new Tally();
  #trigger: TriggerState;
  #routing: Placement | undefined;
  #journey: Journey | undefined;
  #step = 0;
  #timeUs = Number.NEGATIVE_INFINITY;
  /** Bytes handed out since the last call of `step`. */
  #stepBytes = 0;
  #planId = 0;
  #abortsInRow = 0;
  /** A rank failed since the last migration that took the failed ones into account. */
  #ranksChanged = false;
  /** The routing table for which no lost expert could be placed. */
  #repairTried: Placement | undefined;
  /** Experts reported as without a slot. */
  #unplaced = 0;

  /** @throws InputError for options that cannot be used, with the numbers. */
  constructor(options: EplbControllerOptions) {
    this.#options = resolveOptions(options);
    const { numLayers, numLogical, numReplicas, numGpus } = options;
    this.#shape = { numLayers, numLogical, numReplicas, numGpus };
    this.#held = initialSlots(this.#options, this.#shape);
    checkSlots("initial", this.#held, this.#shape);
    this.#trigger = startTrigger(this.#options);
    this.#log = new BalanceLog(this.#options.logSteps);
  }

  /** The routing table of this moment; a new object whenever it changes. */
  get routing(): Placement {
    this.#routing ??= routeSlots(this.#held, this.#shape);
    return this.#routing;
  }

  /**
   * Notes a forward step and decides what to do next.
   *
   * @throws InputError for counts that do not fit, or a clock that runs backwards.
   */
  step(input: StepInput): readonly EplbAction[] {
    this.#setTime(input.timeUs);
    const loads = this.#loadsOf(input);
    this.#step++;
    this.#stepBytes = 0;
    if (loads !== undefined) this.#observe(loads);
    const actions: EplbAction[] = [];
    this.#watch(actions);
    if (this.#journey === undefined) this.#decide(actions);
    else this.#issue(actions);
    return actions;
  }

  /** Lets the watchdog look while no steps run. */
  tick(timeUs: number): readonly EplbAction[] {
    this.#setTime(timeUs);
    const actions: EplbAction[] = [];
    this.#watch(actions);
    this.#issue(actions);
    return actions;
  }

  /**
   * All copies of an attempt have arrived. The next step's copies come with the next `step`, so
   * that no step of the engine pays for two. An attempt that is not running is counted and ignored.
   */
  moveCompleted(ref: MoveRef): readonly EplbAction[] {
    const journey = this.#running(ref);
    if (journey === undefined) return [];
    const { copies, commits } = journey.step;
    for (const { layer, slot, expert } of commits) {
      this.#held[layer * this.#shape.numReplicas + slot] = expert;
    }
    this.#tally.copiesCompleted += copies.length;
    journey.advance();
    this.#routing = undefined;
    const actions: EplbAction[] = [];
    if (commits.length > 0) actions.push({ kind: "route", routing: this.routing, commits });
    if (journey.done) this.#finish(journey, actions);
    return actions;
  }

  /** Copies of an attempt failed; it is tried again, or the plan is aborted. */
  moveFailed(ref: MoveRef, cause: string): readonly EplbAction[] {
    const journey = this.#running(ref);
    if (journey === undefined) return [];
    const actions: EplbAction[] = [];
    this.#retry(journey, cause, actions);
    this.#issue(actions);
    return actions;
  }

  /**
   * A rank is gone and what its slots held with it. A migration under way is aborted; experts that
   * only it held are placed elsewhere at once.
   */
  rankFailed(gpu: number, timeUs: number): readonly EplbAction[] {
    this.#setTime(timeUs);
    this.#checkGpu(gpu);
    if (this.#failed.has(gpu)) return [];
    const actions: EplbAction[] = [];
    if (this.#journey !== undefined) this.#end(this.#journey, `rank ${gpu} failed`, actions);
    this.#failed.add(gpu);
    this.#ranksChanged = true;
    const { numLayers, numReplicas, numGpus } = this.#shape;
    const perGpu = numReplicas / numGpus;
    for (let layer = 0; layer < numLayers; layer++) {
      const begin = layer * numReplicas + gpu * perGpu;
      this.#held.fill(emptySlot, begin, begin + perGpu);
    }
    this.#routing = undefined;
    const lost = lostExperts(this.#held, this.#shape);
    this.#report(actions, { event: "rank-failed", step: this.#step, gpu, lost });
    actions.push({ kind: "route", routing: this.routing, commits: [] });
    if (lost.length > 0) this.#repair(actions);
    return actions;
  }

  /** A rank is back with empty slots; they are filled with the next migration. */
  rankRecovered(gpu: number, timeUs: number): readonly EplbAction[] {
    this.#setTime(timeUs);
    this.#checkGpu(gpu);
    if (!this.#failed.delete(gpu)) return [];
    const actions: EplbAction[] = [];
    this.#report(actions, { event: "rank-recovered", step: this.#step, gpu });
    if (this.#journey === undefined && this.#hasLost()) this.#repair(actions);
    return actions;
  }

  /** What is going on, and what has. */
  metrics(): EplbMetrics {
    const tally = this.#tally;
    const moving = this.#journey === undefined ? "idle" : "moving";
    return {
      step: this.#step,
      state: this.#hasLost() ? "degraded" : moving,
      correcting: this.#trigger.correcting,
      balancedness: this.#log.last,
      balancednessLog: this.#log.values(),
      plansStarted: tally.plansStarted,
      plansCompleted: tally.plansCompleted,
      plansAborted: tally.plansAborted,
      declined: tally.declined,
      policyFailures: tally.policyFailures,
      retries: tally.retries,
      staleAcks: tally.staleAcks,
      copiesIssued: tally.copiesIssued,
      bytesIssued: tally.bytesIssued,
      copiesCompleted: tally.copiesCompleted,
      failedGpus: [...this.#failed].sort((a, b) => a - b),
      emptySlots: this.#emptySlots(),
      lastRebalance: tally.lastRebalance,
    };
  }

  #setTime(timeUs: number): void {
    if (!(timeUs >= this.#timeUs && timeUs < Number.POSITIVE_INFINITY)) {
      const allowed =
        this.#timeUs < 0 ? "a finite time" : `a time from ${this.#timeUs} on: clocks run forward`;
      throw new InputError("timeUs", String(timeUs), allowed);
    }
    this.#timeUs = timeUs;
  }

  #checkGpu(gpu: number): void {
    const { numGpus } = this.#shape;
    if (Number.isInteger(gpu) && gpu >= 0 && gpu < numGpus) return;
    throw new InputError("gpu", String(gpu), `a GPU from 0 to ${numGpus - 1}`);
  }

  #loadsOf({ loads, slotTokens }: StepInput): ArrayLike<number> | undefined {
    if (loads !== undefined && slotTokens !== undefined) {
      throw new InputError("slotTokens", "given beside loads", "one of the two");
    }
    const counts =
      slotTokens === undefined ? loads : loadsFromSlots(slotTokens.counts, slotTokens.routing);
    if (counts !== undefined) checkCounts(counts, this.#shape);
    return counts;
  }

  #observe(loads: ArrayLike<number>): void {
    this.#options.statistics.observe(loads);
    const { balancedness, maxOverMean } = this.#balance(loads);
    this.#log.add(balancedness);
    this.#options.onCounter?.("eplb", "balance", { balancedness, maxOverMean });
  }

  #balance(loads: ArrayLike<number>): { balancedness: number; maxOverMean: number } {
    return balanceOfSlots(this.#held, loads, this.#shape, this.#failed);
  }

  /** Loads to place for. */
  #predicted(): Float64Array {
    const { statistics, predict } = this.#options;
    if (predict === undefined) return statistics.loads();
    const loads = predict(statistics);
    checkCounts(loads, this.#shape);
    return Float64Array.from(loads);
  }

  #hasLost(): boolean {
    return this.routing.logcnt.includes(0);
  }

  #emptySlots(): number {
    const { numLayers, numReplicas, numGpus } = this.#shape;
    const dead = (numLayers * numReplicas * this.#failed.size) / numGpus;
    return this.#held.reduce((sum, expert) => sum + (expert < 0 ? 1 : 0), 0) - dead;
  }

  #report(actions: EplbAction[], report: EplbReport): void {
    this.#tally.note(report);
    actions.push({ kind: "report", report });
  }

  /** Begins what is most urgent, if anything. */
  #decide(actions: EplbAction[]): void {
    const tried = this.#repairTried === this.routing;
    if (!tried && this.#hasLost() && this.#repair(actions)) return;
    const liveSlots = liveGpus(this.#shape.numGpus, this.#failed).length;
    const capacity = (liveSlots * this.#shape.numReplicas) / this.#shape.numGpus;
    if (capacity < this.#shape.numLogical) return;
    if (this.#step < this.#trigger.quietUntil) return;
    if (this.#ranksChanged) this.#rebalance("rank-failed", actions);
    else if (this.#emptySlots() > 0) this.#rebalance("empty-slots", actions);
    else if (isCheckDue(this.#trigger, this.#step)) this.#check(actions);
  }

  #check(actions: EplbAction[]): void {
    if (this.#options.statistics.steps === 0) return;
    const { maxOverMean } = this.#balance(this.#predicted());
    this.#trigger = afterCheck(this.#trigger, this.#step, maxOverMean, this.#options);
    if (this.#trigger.correcting) this.#rebalance("imbalance", actions);
  }

  #rebalance(reason: RebalanceReason, actions: EplbAction[]): void {
    const proposal = this.#propose(reason, actions);
    this.#ranksChanged = false;
    const why = proposal && this.#refusal(proposal);
    if (proposal !== undefined && why === undefined) {
      this.#begin(proposal.plan, reason, proposal, actions);
      return;
    }
    // Without this, slots that no policy fills would be asked about at every step.
    this.#trigger = quiet(this.#trigger, this.#step, this.#options.intervalSteps);
    if (proposal === undefined || why === undefined) return;
    const { gain } = proposal;
    this.#report(actions, { event: "declined", step: this.#step, reason, why, gain });
  }

  /** The policy's proposal, or undefined if it refuses: that must not end the serving. */
  #propose(reason: RebalanceReason, actions: EplbAction[]): Proposal | undefined {
    const loads = this.#predicted();
    try {
      return propose({
        held: this.#held,
        loads,
        shape: this.#shape,
        failed: this.#failed,
        options: this.#options,
      });
    } catch (error) {
      if (!(error instanceof InputError)) throw error;
      const cause = error.message;
      this.#report(actions, { event: "policy-failed", step: this.#step, reason, cause });
      return undefined;
    }
  }

  #refusal({
    plan,
    gain,
    tokensSaved,
  }: Proposal): "gain" | "payback" | "nothing-to-move" | undefined {
    if (plan.copies === 0) return "nothing-to-move";
    // A slot that holds nothing is worth filling whatever the balance is.
    if (this.#emptySlots() > 0) return undefined;
    const { minGain, payback } = this.#options;
    if (gain < minGain) return "gain";
    if (payback === undefined) return undefined;
    const earned = tokensSaved * payback.usPerToken * payback.withinSteps;
    return plan.bytes * payback.usPerByte > earned ? "payback" : undefined;
  }

  /** Begins to place lost experts. @returns whether any can be placed. */
  #repair(actions: EplbAction[]): boolean {
    const loads = this.#predicted();
    const { target, unplaced } = repairSlots(this.#held, loads, this.#shape, this.#failed);
    if (unplaced.length !== this.#unplaced) this.#reportCapacity(unplaced, actions);
    const plan = planMigration(this.#held, target, this.#shape, this.#options);
    if (plan.copies === 0) {
      this.#repairTried = this.routing;
      return false;
    }
    const before = this.#balance(loads).maxOverMean;
    const after = balanceOfSlots(plan.final, loads, this.#shape, this.#failed).maxOverMean;
    this.#begin(plan, "lost-experts", { before, after }, actions);
    return true;
  }

  #reportCapacity(
    unplaced: Extract<EplbReport, { event: "capacity" }>["unplaced"],
    actions: EplbAction[],
  ): void {
    this.#unplaced = unplaced.length;
    if (unplaced.length === 0) return;
    const { numLogical, numReplicas, numGpus } = this.#shape;
    const liveSlots = (numReplicas / numGpus) * (numGpus - this.#failed.size);
    this.#report(actions, {
      event: "capacity",
      step: this.#step,
      liveSlots,
      numLogical,
      unplaced,
    });
  }

  #begin(
    plan: MigrationPlan,
    reason: RebalanceReason,
    balance: { readonly before: number; readonly after: number },
    actions: EplbAction[],
  ): void {
    const id = this.#planId++;
    const { movedSlots, copies, bytes, skippedSlots } = plan;
    this.#report(actions, {
      event: "started",
      plan: id,
      step: this.#step,
      reason,
      before: balance.before,
      after: balance.after,
      movedSlots,
      copies,
      bytes,
      moves: plan.steps.length,
      skippedSlots,
    });
    this.#journey = new Journey(plan, id, reason);
    this.#issue(actions);
  }

  /** Hands out the step at hand, unless it is running or this engine step's budget is spent. */
  #issue(actions: EplbAction[]): void {
    const journey = this.#journey;
    if (journey === undefined || journey.running) return;
    const { copies, bytes } = journey.step;
    if (this.#stepBytes + bytes > this.#options.maxBytesPerStep) return;
    this.#stepBytes += bytes;
    this.#tally.copiesIssued += copies.length;
    this.#tally.bytesIssued += bytes;
    this.#options.onCounter?.("eplb", "moved", { bytes: this.#tally.bytesIssued });
    if (journey.plan.staging === "in-place") {
      for (const { layer, to } of copies) {
        const at = layer * this.#shape.numReplicas + to;
        if (this.#held[at] !== emptySlot) this.#routing = undefined;
        this.#held[at] = emptySlot;
      }
    }
    journey.start(this.#step, this.#timeUs);
    actions.push({ kind: "move", ...journey.ref, routing: this.routing, copies, bytes });
  }

  /** The journey, if `ref` is its running attempt. */
  #running(ref: MoveRef): Journey | undefined {
    const journey = this.#journey;
    if (journey?.isRunning(ref)) return journey;
    this.#tally.staleAcks++;
    return undefined;
  }

  /** The watchdog: a move that is late is tried again, and given up in the end. */
  #watch(actions: EplbAction[]): void {
    const journey = this.#journey;
    const late = journey?.lateness(this.#step, this.#timeUs, this.#options);
    if (journey !== undefined && late !== undefined) this.#retry(journey, late, actions);
  }

  #retry(journey: Journey, cause: string, actions: EplbAction[]): void {
    const { ref } = journey;
    if (!journey.retry(this.#options.maxRetries)) {
      this.#abort(journey, cause, actions);
      return;
    }
    actions.push({ kind: "cancel", ...ref });
    this.#report(actions, { event: "retried", step: this.#step, cause, ...ref });
  }

  /** Gives a plan up; the next waits the longer, the more were given up in a row. */
  #abort(journey: Journey, cause: string, actions: EplbAction[]): void {
    this.#end(journey, cause, actions);
    const backoff = Math.min(backoffMax, 2 ** this.#abortsInRow);
    this.#abortsInRow++;
    const wait = Math.max(1, this.#options.cooldownSteps) * backoff;
    this.#trigger = quiet(this.#trigger, this.#step, wait);
  }

  /** Ends a plan early. Slots that were being written in place stay empty and unrouted. */
  #end(journey: Journey, cause: string, actions: EplbAction[]): void {
    const { ref } = journey;
    if (journey.running) actions.push({ kind: "cancel", ...ref });
    this.#journey = undefined;
    this.#report(actions, { event: "aborted", step: this.#step, cause, ...ref });
  }

  #finish(journey: Journey, actions: EplbAction[]): void {
    this.#journey = undefined;
    this.#abortsInRow = 0;
    this.#report(actions, { event: "completed", plan: journey.id, step: this.#step });
    // Placing lost experts is an emergency; what it leaves unbalanced need not wait.
    if (journey.reason === "lost-experts") return;
    this.#trigger = quiet(this.#trigger, this.#step, this.#options.cooldownSteps);
  }
}
