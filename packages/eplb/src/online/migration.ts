// A migration plan: how slots get from what they hold to a target in steps, each within a budget
// of bytes and each leaving a placement that can serve. Which slot may be written when is decided
// a layer at a time in layer-moves.ts; here the layers' copies are dealt to steps.

import { InputError } from "@open-infra/errors";
import { nodeOfGpu } from "../shape.ts";
import type { LayerCopy, LayerMoves, Staging, Wave } from "./layer-moves.ts";
import { planLayer } from "./layer-moves.ts";
import type { SlotShape } from "./slots.ts";
import { alignWithinGpus, checkSlots } from "./slots.ts";
import { checkWhole } from "./statistics.ts";

/** A copy of one expert's weights into a slot. */
export interface SlotCopy extends LayerCopy {
  readonly layer: number;
}

/** A slot whose new weights are complete; it may be routed to, or swapped with its buffer. */
export interface SlotCommit {
  readonly layer: number;
  readonly slot: number;
  readonly expert: number;
}

/** Copies that run between two acknowledgements. */
export interface MigrationStep {
  /**
   * They may run at once and in any order. In place, the slots they write have left the routing
   * table before; with staging buffers they write a buffer of their slot's GPU.
   */
  readonly copies: readonly SlotCopy[];
  readonly bytes: number;
  /** What takes effect when all copies have arrived, and not before. */
  readonly commits: readonly SlotCommit[];
}

/** How a migration may proceed. */
export interface MigrationOptions {
  /** Bytes of one expert's weights. @default 1, so that budgets count slots */
  readonly bytesPerExpert?: number;
  /** Most bytes a step may copy; at least `bytesPerExpert`. @default unlimited */
  readonly maxBytesPerStep?: number;
  /**
   * Most layers a step may touch: TensorRT-LLM's `layer_updates_per_iter`, SGLang's layers per
   * chunk. @default all
   */
  readonly layersPerStep?: number;
  /** Nodes the GPUs are on; what can be read from the same node is. @default 1 */
  readonly numNodes?: number;
  /** Layers in the order in which they shall be moved. @default 0, 1, 2, … */
  readonly layerOrder?: readonly number[];
  /**
   * `in-place` overwrites slots and needs no memory beside them; `double-buffer` copies into
   * staging buffers and swaps, which needs fewer copies and never takes a replica out of service.
   * @default "in-place"
   */
  readonly staging?: Staging;
  /** Staging buffers a GPU, each of one expert's size. @default 1 */
  readonly stagingSlotsPerGpu?: number;
}

/** Steps from what slots held to `final`. */
export interface MigrationPlan {
  readonly staging: Staging;
  readonly steps: readonly MigrationStep[];
  /** What slots hold at the end: the target up to the order inside GPUs, and `skippedSlots`. */
  readonly final: Int32Array;
  /** Slots that hold something else at the end. */
  readonly movedSlots: number;
  /** Copies, those through a redundant slot included. */
  readonly copies: number;
  readonly bytes: number;
  /** Copies whose source is on another GPU, of these on another node, and those without one. */
  readonly crossGpuCopies: number;
  readonly crossNodeCopies: number;
  readonly hostCopies: number;
  /**
   * Slots left as they were: experts that trade places in a layer without any redundant slot need
   * `double-buffer`.
   */
  readonly skippedSlots: number;
}

/** A layer's groups that are not in a step yet, wave by wave. */
class LayerQueue {
  readonly layer: number;
  readonly #waves: Wave[];
  /** The group of the current wave whose copies are partly in earlier steps, and how many. */
  #partial = 0;
  #groups: LayerCopy[][];

  constructor(layer: number, moves: LayerMoves) {
    this.layer = layer;
    this.#waves = [...moves.waves];
    this.#groups = this.#takeWave();
  }

  get done(): boolean {
    return this.#groups.length === 0;
  }

  #takeWave(): LayerCopy[][] {
    return (this.#waves.shift() ?? []).map((group) => [...group]);
  }

  /** Moves copies of the current wave into the step as long as it takes them. */
  fill(step: StepDraft): void {
    const left: LayerCopy[][] = [];
    for (const [i, group] of this.#groups.entries()) {
      if (step.full) {
        left.push(...this.#groups.slice(i));
        break;
      }
      if (this.#partial > 0 && group !== this.#groups[0]) {
        left.push(group);
        continue;
      }
      if (this.#partial === 0 && !step.reserve(group)) {
        left.push(group);
        continue;
      }
      const taken = step.take(this.layer, group, this.#partial);
      if (taken === group.length) {
        step.commit(this.layer, group);
        this.#partial = 0;
      } else {
        this.#partial = taken;
        left.unshift(group);
      }
    }
    this.#groups = left;
  }

  /** Goes on to the next wave when this one is done; never in the step that ends a wave. */
  advance(): void {
    if (this.#groups.length === 0) this.#groups = this.#takeWave();
  }
}

/** The step being filled. */
class StepDraft {
  readonly copies: SlotCopy[] = [];
  readonly commits: SlotCommit[] = [];
  readonly #copiesMax: number;
  /** Staging buffers free by GPU, those of groups begun in earlier steps taken; none in place. */
  readonly #buffers: Int32Array | undefined;
  readonly #slotsPerGpu: number;
  readonly #release: number[] = [];

  constructor(limits: StepLimits, buffers: Int32Array | undefined) {
    this.#copiesMax = limits.copiesMax;
    this.#slotsPerGpu = limits.slotsPerGpu;
    this.#buffers = buffers;
  }

  get full(): boolean {
    return this.copies.length >= this.#copiesMax;
  }

  /** Whether a group may begin in this step; takes its staging buffers if so. */
  reserve(group: readonly LayerCopy[]): boolean {
    if (this.full) return false;
    const buffers = this.#buffers;
    if (buffers === undefined) return true;
    // A ring passes each GPU once, so its buffers can be looked at one by one.
    for (const { to } of group) {
      if ((buffers[Math.floor(to / this.#slotsPerGpu)] as number) < 1) return false;
    }
    for (const { to } of group) {
      const gpu = Math.floor(to / this.#slotsPerGpu);
      buffers[gpu] = (buffers[gpu] as number) - 1;
    }
    return true;
  }

  /** Takes the group's copies from index `begin` on; returns how many of it are taken now. */
  take(layer: number, group: readonly LayerCopy[], begin: number): number {
    let i = begin;
    for (; i < group.length && !this.full; i++) {
      this.copies.push({ layer, ...(group[i] as LayerCopy) });
    }
    return i;
  }

  commit(layer: number, group: readonly LayerCopy[]): void {
    for (const { to, expert } of group) {
      this.commits.push({ layer, slot: to, expert });
      this.#release.push(Math.floor(to / this.#slotsPerGpu));
    }
  }

  /** Gives back the buffers of what is committed with this step. */
  close(): void {
    if (this.#buffers === undefined) return;
    for (const gpu of this.#release) this.#buffers[gpu] = (this.#buffers[gpu] as number) + 1;
  }
}

interface StepLimits {
  readonly copiesMax: number;
  readonly layersPerStep: number;
  readonly buffersMax: number;
  readonly slotsPerGpu: number;
  readonly bytesPerExpert: number;
}

function packSteps(
  queues: readonly LayerQueue[],
  limits: StepLimits,
  buffers: Int32Array | undefined,
): MigrationStep[] {
  const steps: MigrationStep[] = [];
  let active = queues.filter((queue) => !queue.done);
  while (active.length > 0) {
    const step = new StepDraft(limits, buffers);
    for (const queue of active.slice(0, limits.layersPerStep)) {
      if (step.full) break;
      queue.fill(step);
    }
    step.close();
    const { copies, commits } = step;
    steps.push({ copies, commits, bytes: copies.length * limits.bytesPerExpert });
    for (const queue of active) queue.advance();
    active = active.filter((queue) => !queue.done);
  }
  return steps;
}

/** The budgets as counts. @throws InputError when one cannot be met. */
export function migrationLimits(options: MigrationOptions, slotsPerGpu: number): StepLimits {
  const { bytesPerExpert = 1, maxBytesPerStep, layersPerStep, stagingSlotsPerGpu = 1 } = options;
  if (!(bytesPerExpert > 0 && bytesPerExpert < Number.POSITIVE_INFINITY)) {
    throw new InputError("bytesPerExpert", String(bytesPerExpert), "a positive number");
  }
  if (maxBytesPerStep !== undefined && !(maxBytesPerStep >= bytesPerExpert)) {
    const allowed = `at least bytesPerExpert (${bytesPerExpert}), or no expert can ever move`;
    throw new InputError("maxBytesPerStep", String(maxBytesPerStep), allowed);
  }
  if (layersPerStep !== undefined) checkWhole("layersPerStep", layersPerStep, 1);
  checkWhole("stagingSlotsPerGpu", stagingSlotsPerGpu, 1);
  const copiesMax = Math.floor((maxBytesPerStep ?? Number.POSITIVE_INFINITY) / bytesPerExpert);
  return {
    copiesMax,
    layersPerStep: layersPerStep ?? Number.POSITIVE_INFINITY,
    buffersMax: stagingSlotsPerGpu,
    slotsPerGpu,
    bytesPerExpert,
  };
}

/** @throws InputError when the target gives up an expert that is held. */
function checkKept(held: Int32Array, target: Int32Array, layer: number, numLogical: number): void {
  const kept = new Uint8Array(numLogical);
  target.forEach((expert, slot) => {
    const ends = expert >= 0 ? expert : (held[slot] as number);
    if (ends >= 0) kept[ends] = 1;
  });
  for (const expert of held) {
    if (expert < 0 || kept[expert] === 1) continue;
    const got = `without expert ${expert} of layer ${layer}`;
    throw new InputError("target", got, "a placement that keeps every expert that a slot holds");
  }
}

/**
 * Plans the steps from `held` to `target`, both [numLayers × numReplicas] with −1 for slots that
 * hold, or shall be given, nothing. Targets are reordered inside GPUs so that nothing moves that
 * need not.
 *
 * @throws InputError for budgets below one expert, wrong lengths or ids, or a target that gives up
 * an expert.
 */
export function planMigration(
  held: Int32Array,
  target: Int32Array,
  shape: SlotShape,
  options: MigrationOptions = {},
): MigrationPlan {
  const { numLayers, numLogical, numReplicas, numGpus } = shape;
  const { staging = "in-place", numNodes = 1 } = options;
  checkWhole("numNodes", numNodes, 1);
  checkSlots("held", held, shape);
  checkSlots("target", target, shape);
  const slotsPerGpu = numReplicas / numGpus;
  const limits = migrationLimits(options, slotsPerGpu);
  const nodeOfSlot = Int32Array.from({ length: numReplicas }, (_, slot) =>
    nodeOfGpu(Math.floor(slot / slotsPerGpu), { numGpus, numNodes }),
  );
  const aligned = alignWithinGpus(held, target, slotsPerGpu);
  const final = new Int32Array(held.length);
  const queues: LayerQueue[] = [];
  let skippedSlots = 0;
  for (const layer of options.layerOrder ?? Array.from({ length: numLayers }, (_, i) => i)) {
    const row = held.subarray(layer * numReplicas, (layer + 1) * numReplicas);
    const rowTarget = aligned.subarray(layer * numReplicas, (layer + 1) * numReplicas);
    checkKept(row, rowTarget, layer, numLogical);
    const cluster = { numLogical, slotsPerGpu, nodeOfSlot, staging };
    const moves = planLayer({ held: row, target: rowTarget, ...cluster });
    final.set(moves.final, layer * numReplicas);
    skippedSlots += moves.skipped;
    queues.push(new LayerQueue(layer, moves));
  }
  const buffered = staging === "double-buffer";
  const buffers = buffered ? new Int32Array(numGpus).fill(limits.buffersMax) : undefined;
  const steps = packSteps(queues, limits, buffers);
  const moved = held.reduce((sum, expert, at) => sum + (expert === final[at] ? 0 : 1), 0);
  const gpuOf = (slot: number): number => Math.floor(slot / slotsPerGpu);
  return {
    staging,
    steps,
    final,
    skippedSlots,
    movedSlots: moved,
    ...totals(steps, gpuOf, nodeOfSlot),
  };
}

function totals(
  steps: readonly MigrationStep[],
  gpuOf: (slot: number) => number,
  nodeOfSlot: Int32Array,
): Pick<MigrationPlan, "copies" | "bytes" | "crossGpuCopies" | "crossNodeCopies" | "hostCopies"> {
  let [copied, bytes, crossGpuCopies, crossNodeCopies, hostCopies] = [0, 0, 0, 0, 0];
  for (const { copies, bytes: stepBytes } of steps) {
    copied += copies.length;
    bytes += stepBytes;
    for (const { from, to } of copies) {
      if (from < 0) hostCopies++;
      else if (gpuOf(from) !== gpuOf(to)) crossGpuCopies++;
      if (from >= 0 && nodeOfSlot[from] !== nodeOfSlot[to]) crossNodeCopies++;
    }
  }
  return { copies: copied, bytes, crossGpuCopies, crossNodeCopies, hostCopies };
}
