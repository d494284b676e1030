// What goes into the online controller and what comes out: its options, its actions, its reports
// and its metrics. What it does with them is in controller.ts.

import type { EplbShape, LoadRows, Placement } from "../placement.ts";
import type { PolicyName, RebalanceOptions } from "../rebalance.ts";
import type { MigrationOptions, SlotCommit, SlotCopy } from "./migration.ts";
import type { ExpertRef } from "./slots.ts";
import type { ExpertCount, LoadStatistics } from "./statistics.ts";

/** A placement for `weight`: [numLayers, numReplicas] experts. */
export type RebalanceFunction = (
  weight: LoadRows,
  options: RebalanceOptions,
) => Pick<Placement, "phy2log">;

/** When time saved pays for time spent moving. */
export interface Payback {
  /** Time one token adds to the fullest GPU of a layer, microseconds. */
  readonly usPerToken: number;
  /** Time one byte of migration costs the serving, microseconds. */
  readonly usPerByte: number;
  /** A rebalance must earn its cost within this many steps. */
  readonly withinSteps: number;
}

/** How the controller decides. Steps are the engine's forward steps. */
export interface EplbControllerOptions
  extends EplbShape,
    ExpertCount,
    Omit<MigrationOptions, "layerOrder" | "numNodes"> {
  /** What slots hold at the start. @default the original's placement for equal loads */
  readonly initial?: Placement;
  /**
   * `minimal-migration` keeps the node limit of a placement that has it. Layers that have lost it,
   * through failed ranks or an aborted plan, are placed by `optimized` until they have it again.
   * @default "minimal-migration"
   */
  readonly policy?: PolicyName;
  /** The policy's own options; see `rebalanceExperts`. */
  readonly targetMaxOverMean?: number;
  /** Bounds what is moved for balance; empty slots are filled whatever it takes. */
  readonly maxMovedSlots?: number;
  /** Replaces `rebalanceExperts`: a policy of one's own, or a test's. */
  readonly rebalance?: RebalanceFunction;
  /** Where loads are gathered. @default a `LoadWindow` of 1000 steps in buckets of 10 */
  readonly statistics?: LoadStatistics;
  /**
   * Loads to place for, [numLayers × numLogical]. @default what the statistics say
   */
  readonly predict?: (statistics: LoadStatistics) => ArrayLike<number>;
  /** Steps between checks of the balance; the first comes after a quarter. @default 3000 */
  readonly intervalSteps?: number;
  /** Max ÷ mean load above which rebalancing begins. @default 1.05 */
  readonly startAbove?: number;
  /** Max ÷ mean load below which it ends, until it is above `startAbove` again. @default 1.02 */
  readonly stopBelow?: number;
  /** Steps after a migration before the next may begin. @default 0 */
  readonly cooldownSteps?: number;
  /** Least fall of Σ max load, as a share, for which anything moves. @default 0.01 */
  readonly minGain?: number;
  /** Least fall of one layer's max load, as a share, for which that layer moves. @default 0.005 */
  readonly minLayerGain?: number;
  readonly payback?: Payback;
  /** Steps within which a move must be acknowledged. @default 100 */
  readonly moveDeadlineSteps?: number;
  /** The same in microseconds; whichever comes first. @default none */
  readonly moveDeadlineUs?: number;
  /** Times a stalled or failed move is tried again before the plan is aborted. @default 2 */
  readonly maxRetries?: number;
  /** Steps of balancedness that metrics keep. @default 1000 */
  readonly logSteps?: number;
  /** Told about balance and moved bytes; fits `Recorder.counter` of the profile package. */
  readonly onCounter?: (
    lane: string,
    name: string,
    values: Readonly<Record<string, number>>,
  ) => void;
}

/** One forward step, over. Give the loads in one of two ways, or none if nothing was routed. */
export interface StepInput {
  /** The engine's clock; never runs backwards. */
  readonly timeUs: number;
  /** Tokens of each logical expert, summed over ranks: [numLayers × numLogical]. */
  readonly loads?: ArrayLike<number>;
  /** Tokens of each slot, [numLayers × numReplicas], and the routing table they went by. */
  readonly slotTokens?: { readonly counts: ArrayLike<number>; readonly routing: Placement };
}

/** Names one attempt at one step of one plan. */
export interface MoveRef {
  readonly plan: number;
  readonly index: number;
  readonly attempt: number;
}

/**
 * Publish `routing`; once every rank routes by it, run the copies; then call `moveCompleted`. An
 * attempt ends any earlier one that wrote the same slots.
 */
export interface MoveAction extends MoveRef {
  readonly kind: "move";
  readonly routing: Placement;
  readonly copies: readonly SlotCopy[];
  readonly bytes: number;
}

/** Stop the copies of an attempt; nothing may write its slots any more. */
export interface CancelAction extends MoveRef {
  readonly kind: "cancel";
}

/**
 * Between two forward steps: with staging buffers swap the committed slots with their buffers; then
 * route by `routing`.
 */
export interface RouteAction {
  readonly kind: "route";
  readonly routing: Placement;
  readonly commits: readonly SlotCommit[];
}

/** Tell the operator. */
export interface ReportAction {
  readonly kind: "report";
  readonly report: EplbReport;
}

/** What the engine has to do, in order. */
export type EplbAction = MoveAction | CancelAction | RouteAction | ReportAction;

/** Why a migration was begun. */
export type RebalanceReason =
  /** Max ÷ mean load is above the threshold. */
  | "imbalance"
  /** Experts have no slot; they are placed first. */
  | "lost-experts"
  /** A rank failed, and the rest can be balanced better. */
  | "rank-failed"
  /** Live slots are empty: after a recovery or an aborted plan. */
  | "empty-slots";

/** What happened. */
export type EplbReport =
  | {
      readonly event: "started";
      readonly plan: number;
      readonly step: number;
      readonly reason: RebalanceReason;
      /** Σ max ÷ Σ mean load of what is held, and of what is planned, under the predicted loads. */
      readonly before: number;
      readonly after: number;
      readonly movedSlots: number;
      readonly copies: number;
      readonly bytes: number;
      readonly moves: number;
      readonly skippedSlots: number;
    }
  | { readonly event: "completed"; readonly plan: number; readonly step: number }
  | {
      readonly event: "declined";
      readonly step: number;
      readonly reason: RebalanceReason;
      readonly why: "gain" | "payback" | "nothing-to-move";
      readonly gain: number;
    }
  | {
      /** The policy refused its input; serving goes on with what is held. */
      readonly event: "policy-failed";
      readonly step: number;
      readonly reason: RebalanceReason;
      readonly cause: string;
    }
  | ({
      /** The move was not acknowledged in time, or failed, and is tried again. */
      readonly event: "retried";
      readonly step: number;
      readonly cause: string;
    } & MoveRef)
  | ({
      /** The plan ended early; what is held and routed is consistent. */
      readonly event: "aborted";
      readonly step: number;
      readonly cause: string;
    } & MoveRef)
  | {
      readonly event: "rank-failed";
      readonly step: number;
      readonly gpu: number;
      /** Experts that no slot holds now. */
      readonly lost: readonly ExpertRef[];
    }
  | { readonly event: "rank-recovered"; readonly step: number; readonly gpu: number }
  | {
      /** Live slots are too few for all experts; those named cannot be served. */
      readonly event: "capacity";
      readonly step: number;
      readonly liveSlots: number;
      readonly numLogical: number;
      readonly unplaced: readonly ExpertRef[];
    };

/** A snapshot of the controller. */
export interface EplbMetrics {
  readonly step: number;
  /** `degraded`: some expert has no slot. */
  readonly state: "idle" | "moving" | "degraded";
  /** Whether the load is, or was until `stopBelow`, above `startAbove`. */
  readonly correcting: boolean;
  /** Σ mean ÷ Σ max of the last step with loads, by what was held then. */
  readonly balancedness: number;
  /** The same of the last `logSteps` steps with loads, oldest first. */
  readonly balancednessLog: readonly number[];
  readonly plansStarted: number;
  readonly plansCompleted: number;
  readonly plansAborted: number;
  readonly declined: number;
  readonly policyFailures: number;
  readonly retries: number;
  /** Acknowledgements of attempts that were not running. */
  readonly staleAcks: number;
  /** Copies and bytes that were issued, those of retries included. */
  readonly copiesIssued: number;
  readonly bytesIssued: number;
  /** Copies that were acknowledged. */
  readonly copiesCompleted: number;
  readonly failedGpus: readonly number[];
  /** Slots of live GPUs that hold nothing. */
  readonly emptySlots: number;
  readonly lastRebalance: Extract<EplbReport, { event: "started" }> | undefined;
}
