// Replays a load trace through the controller, beside two things to compare it with: a placement
// that never changes, and the original run afresh at every interval. The model is the load alone:
// a layer takes as long as its fullest GPU has tokens, an expert's tokens spread evenly over its
// replicas, and a move arrives after a fixed number of steps.

import { InputError } from "@open-infra/errors";
import type { Placement } from "../placement.ts";
import { type PolicyName, rebalanceExperts } from "../rebalance.ts";
import { EplbController } from "./controller.ts";
import { initialSlots, resolveOptions } from "./controller-options.ts";
import type {
  EplbAction,
  EplbControllerOptions,
  EplbMetrics,
  EplbReport,
  MoveAction,
} from "./controller-types.ts";
import type { SlotShape } from "./slots.ts";
import { alignWithinGpus, balanceOfSlots } from "./slots.ts";
import { checkWhole, type LoadStatistics, LoadWindow, loadRows } from "./statistics.ts";
import type { LoadTrace } from "./trace.ts";

/** Something that happens during a replay, before the step's loads. */
export type SimulationEvent =
  | { readonly step: number; readonly event: "rank-failed"; readonly gpu: number }
  | { readonly step: number; readonly event: "rank-recovered"; readonly gpu: number }
  /** Moves handed out from this step on do not arrive, for `steps` steps. */
  | { readonly step: number; readonly event: "stall"; readonly steps: number };

/** A replay. */
export interface SimulateOptions
  extends Omit<EplbControllerOptions, "numLayers" | "numLogical" | "statistics"> {
  /** Makes the statistics of the controller and of the fresh baseline. */
  readonly statistics?: () => LoadStatistics;
  /** Steps a row of the result spans. @default a 40th of the trace */
  readonly windowSteps?: number;
  /** Steps a move takes to arrive. @default 1 */
  readonly moveSteps?: number;
  /** Time of a step on the controller's clock. @default 10_000 */
  readonly stepUs?: number;
  /** Policy of the fresh baseline. @default "deepseek" */
  readonly freshPolicy?: PolicyName;
  readonly events?: readonly SimulationEvent[];
}

/** How one way of placing did over some steps. */
export interface ArmTotals {
  /** Σ mean ÷ Σ max load over steps and layers; the share of time that GPUs do not wait. */
  readonly balancedness: number;
  /** Its reciprocal. */
  readonly maxOverMean: number;
  /** Copies of expert weights. */
  readonly movedSlots: number;
  readonly bytes: number;
}

/** A row of the result. */
export interface SimulationWindow {
  /** The first step, and how many there are. */
  readonly step: number;
  readonly steps: number;
  readonly controller: ArmTotals;
  readonly fixed: ArmTotals;
  readonly fresh: ArmTotals;
  /** State at the window's end. */
  readonly state: EplbMetrics["state"];
  /** Share of the tokens whose expert had no slot. */
  readonly unserved: number;
}

/** What a replay showed. */
export interface SimulationResult {
  readonly numSteps: number;
  readonly windows: readonly SimulationWindow[];
  readonly controller: ArmTotals;
  /** The initial placement, never changed. */
  readonly fixed: ArmTotals;
  /** A fresh placement each interval, swapped in at once and free of charge. */
  readonly fresh: ArmTotals;
  readonly unserved: number;
  /** The most bytes the controller had copied in one step. */
  readonly peakStepBytes: number;
  readonly reports: readonly EplbReport[];
  readonly metrics: EplbMetrics;
  readonly finalRouting: Placement;
}

/** Sums of one arm. */
class Arm {
  #mean = 0;
  #max = 0;
  #moved = 0;
  #bytes = 0;

  add(mean: number, max: number): void {
    this.#mean += mean;
    this.#max += max;
  }

  move(slots: number, bytes: number): void {
    this.#moved += slots;
    this.#bytes += bytes;
  }

  take(other: Arm): void {
    this.add(other.#mean, other.#max);
    this.move(other.#moved, other.#bytes);
  }

  totals(): ArmTotals {
    const maxOverMean = this.#max > this.#mean && this.#mean > 0 ? this.#max / this.#mean : 1;
    return {
      balancedness: 1 / maxOverMean,
      maxOverMean,
      movedSlots: this.#moved,
      bytes: this.#bytes,
    };
  }
}

const sum = (values: Float64Array): number => values.reduce((total, value) => total + value, 0);

/** The three arms over some steps, and the tokens nobody could serve. */
class Sums {
  readonly controller = new Arm();
  readonly fixed = new Arm();
  readonly fresh = new Arm();
  tokens = 0;
  unserved = 0;

  take(other: Sums): void {
    for (const name of ["controller", "fixed", "fresh"] as const) this[name].take(other[name]);
    this.tokens += other.tokens;
    this.unserved += other.unserved;
  }

  get unservedShare(): number {
    return this.tokens === 0 ? 0 : this.unserved / this.tokens;
  }

  arms(): Pick<SimulationResult, "controller" | "fixed" | "fresh"> {
    return {
      controller: this.controller.totals(),
      fixed: this.fixed.totals(),
      fresh: this.fresh.totals(),
    };
  }
}

/** The cluster of the replay: carries out what the controller asks for. */
class Mover {
  readonly reports: EplbReport[] = [];
  readonly failed = new Set<number>();
  peakStepBytes = 0;
  copies = 0;
  bytes = 0;
  #running: { readonly move: MoveAction; readonly dueStep: number } | undefined;
  #stalledUntil = 0;
  #stepBytes = 0;
  readonly #controller: EplbController;
  readonly #moveSteps: number;

  constructor(controller: EplbController, moveSteps: number) {
    this.#controller = controller;
    this.#moveSteps = moveSteps;
  }

  /** Before a step's loads. */
  apply(event: SimulationEvent, step: number, timeUs: number): void {
    if (event.event === "stall") {
      this.#stalledUntil = step + event.steps;
    } else if (event.event === "rank-failed") {
      this.failed.add(event.gpu);
      this.run(this.#controller.rankFailed(event.gpu, timeUs), step);
    } else {
      this.failed.delete(event.gpu);
      this.run(this.#controller.rankRecovered(event.gpu, timeUs), step);
    }
  }

  /** After a step's loads: the move that has arrived by now, if any. */
  arrive(step: number): void {
    if (this.#running === undefined || step < this.#running.dueStep) return;
    const { move } = this.#running;
    this.#running = undefined;
    this.run(this.#controller.moveCompleted(move), step);
  }

  beginStep(): void {
    this.#stepBytes = 0;
  }

  run(actions: readonly EplbAction[], step: number): void {
    for (const action of actions) {
      if (action.kind === "report") this.reports.push(action.report);
      else if (action.kind === "cancel") this.#running = undefined;
      else if (action.kind === "move") this.#start(action, step);
    }
  }

  #start(move: MoveAction, step: number): void {
    const stalled = step < this.#stalledUntil;
    const dueStep = stalled ? Number.POSITIVE_INFINITY : step + this.#moveSteps;
    this.#running = { move, dueStep };
    this.copies += move.copies.length;
    this.bytes += move.bytes;
    this.#stepBytes += move.bytes;
    this.peakStepBytes = Math.max(this.peakStepBytes, this.#stepBytes);
  }
}

/** The original run afresh at every interval, on statistics of its own. */
class FreshArm {
  slots: Int32Array;
  readonly #statistics: LoadStatistics;
  readonly #shape: SlotShape;
  readonly #options: SimulateOptions;
  readonly #intervalSteps: number;
  #next: number;

  constructor(
    slots: Int32Array,
    statistics: LoadStatistics,
    shape: SlotShape,
    options: SimulateOptions,
    intervalSteps: number,
  ) {
    this.slots = slots;
    this.#statistics = statistics;
    this.#shape = shape;
    this.#options = options;
    this.#intervalSteps = intervalSteps;
    this.#next = Math.ceil(intervalSteps / 4);
  }

  /** Notes a step; returns how many slots were moved after it. */
  observe(loads: Float64Array, stepsDone: number): number {
    this.#statistics.observe(loads);
    if (stepsDone < this.#next) return 0;
    this.#next = stepsDone + this.#intervalSteps;
    const { numLogical, numReplicas, numGpus } = this.#shape;
    const { numGroups, numNodes, freshPolicy = "deepseek" } = this.#options;
    const { phy2log } = rebalanceExperts(loadRows(this.#statistics.loads(), numLogical), {
      numReplicas,
      numGroups,
      numNodes,
      numGpus,
      policy: freshPolicy,
    });
    const aligned = alignWithinGpus(this.slots, phy2log, numReplicas / numGpus);
    const moved = aligned.reduce((n, expert, at) => n + (expert === this.slots[at] ? 0 : 1), 0);
    this.slots = aligned;
    return moved;
  }
}

function eventsByStep(
  events: readonly SimulationEvent[],
  numSteps: number,
): Map<number, SimulationEvent[]> {
  for (const { step } of events) {
    if (!Number.isSafeInteger(step) || step < 0 || step >= numSteps) {
      throw new InputError("events.step", String(step), `a step from 0 to ${numSteps - 1}`);
    }
  }
  return Map.groupBy(events, ({ step }) => step);
}

/** One replay, step by step. */
class Replay {
  readonly controller: EplbController;
  readonly mover: Mover;
  readonly total = new Sums();
  readonly windows: SimulationWindow[] = [];
  #window = new Sums();
  #windowStart = 0;
  readonly #shape: SlotShape;
  readonly #fixed: Int32Array;
  readonly #fresh: FreshArm;
  readonly #windowSteps: number;
  readonly #stepUs: number;
  readonly #bytesPerExpert: number;
  readonly #events: ReadonlyMap<number, readonly SimulationEvent[]>;

  constructor(trace: LoadTrace, options: SimulateOptions) {
    const { numLayers, numLogical, numSteps } = trace;
    const { numReplicas, numGpus } = options;
    const statistics =
      options.statistics ??
      (() => new LoadWindow({ numLayers, numLogical, windowSteps: 1000, bucketSteps: 10 }));
    const controllerOptions = { ...options, numLayers, numLogical, statistics: statistics() };
    const resolved = resolveOptions(controllerOptions);
    this.#shape = { numLayers, numLogical, numReplicas, numGpus };
    this.controller = new EplbController(controllerOptions);
    const { moveSteps = 1, stepUs = 10_000, events = [] } = options;
    this.#windowSteps = options.windowSteps ?? Math.max(1, Math.ceil(numSteps / 40));
    checkWhole("moveSteps", moveSteps, 1);
    checkWhole("windowSteps", this.#windowSteps, 1);
    this.mover = new Mover(this.controller, moveSteps);
    this.#fixed = initialSlots(resolved, this.#shape);
    this.#fresh = new FreshArm(
      this.#fixed,
      statistics(),
      this.#shape,
      options,
      resolved.intervalSteps,
    );
    this.#stepUs = stepUs;
    this.#bytesPerExpert = resolved.bytesPerExpert;
    this.#events = eventsByStep(events, numSteps);
  }

  step(loads: Float64Array, step: number): void {
    const timeUs = step * this.#stepUs;
    const { mover } = this;
    mover.beginStep();
    for (const event of this.#events.get(step) ?? []) mover.apply(event, step, timeUs);
    this.#measure(loads);
    mover.arrive(step);
    const { copies, bytes } = mover;
    mover.run(this.controller.step({ timeUs, loads }), step);
    this.#window.controller.move(mover.copies - copies, mover.bytes - bytes);
    const moved = this.#fresh.observe(loads, step + 1);
    this.#window.fresh.move(moved, moved * this.#bytesPerExpert);
  }

  #measure(loads: Float64Array): void {
    const window = this.#window;
    const routing = this.controller.routing;
    const arms = [
      [window.controller, routing.phy2log, this.mover.failed],
      [window.fixed, this.#fixed, new Set<number>()],
      [window.fresh, this.#fresh.slots, new Set<number>()],
    ] as const;
    for (const [arm, slots, failed] of arms) {
      const { meanLoads, maxLoads } = balanceOfSlots(slots, loads, this.#shape, failed);
      arm.add(sum(meanLoads), sum(maxLoads));
    }
    window.tokens += sum(loads);
    if (!routing.logcnt.includes(0)) return;
    window.unserved += loads.reduce(
      (total, load, i) => total + (routing.logcnt[i] === 0 ? load : 0),
      0,
    );
  }

  /** Ends a window if it is full, or if it is the last. */
  closeWindow(stepsDone: number, last: boolean): void {
    const steps = stepsDone - this.#windowStart;
    if (steps < this.#windowSteps && !(last && steps > 0)) return;
    const window = this.#window;
    this.windows.push({
      step: this.#windowStart,
      steps,
      ...window.arms(),
      state: this.controller.metrics().state,
      unserved: window.unservedShare,
    });
    this.total.take(window);
    this.#window = new Sums();
    this.#windowStart = stepsDone;
  }
}

/**
 * Replays a trace. The baselines see the same steps in the same run and do not know of failing
 * ranks.
 *
 * @throws InputError for options or events that cannot be used.
 */
export function simulateEplb(trace: LoadTrace, options: SimulateOptions): SimulationResult {
  const replay = new Replay(trace, options);
  let step = 0;
  for (const loads of trace) {
    replay.step(loads, step);
    step++;
    replay.closeWindow(step, step === trace.numSteps);
  }
  const { controller, mover, total, windows } = replay;
  return {
    numSteps: step,
    windows,
    ...total.arms(),
    unserved: total.unservedShare,
    peakStepBytes: mover.peakStepBytes,
    reports: mover.reports,
    metrics: controller.metrics(),
    finalRouting: controller.routing,
  };
}
