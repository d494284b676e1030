// The order in which one layer's slots may be overwritten. An expert must always have a slot that
// holds it whole, so a slot may only be written when what it holds is also elsewhere; what no order
// can do, because experts trade places in a ring, goes through a redundant slot or a staging
// buffer. Bytes and steps are the business of migration.ts.

import { InfraError } from "@open-infra/errors";

/** A weight copy inside one layer. */
export interface LayerCopy {
  readonly expert: number;
  /** Slot to read from; −1: no slot holds the expert, read it from the host or the checkpoint. */
  readonly from: number;
  readonly to: number;
}

/** Copies that take effect together; more than one only with staging buffers. */
export type CopyGroup = readonly LayerCopy[];

/** Groups that may run at the same time, or one after another in any order. */
export type Wave = readonly CopyGroup[];

/** How one layer gets from what it holds to its target. */
export interface LayerMoves {
  readonly waves: readonly Wave[];
  /** What slots hold at the end: the target, up to the order of slots inside a GPU. */
  readonly final: Int32Array;
  /** Slots that keep what they hold, because no redundant slot was there to go through. */
  readonly skipped: number;
}

/** How to treat experts that trade places. */
export type Staging = "in-place" | "double-buffer";

/** One layer's problem. */
export interface LayerProblem {
  /** What slots hold, −1 for nothing. */
  readonly held: Int32Array;
  /** What they shall hold; −1: leave it as it is. Names every expert that `held` names. */
  readonly target: Int32Array;
  readonly numLogical: number;
  readonly slotsPerGpu: number;
  /** Node of each slot; copies inside a node are preferred. */
  readonly nodeOfSlot: Int32Array;
  readonly staging: Staging;
}

/** The working state: `held` as it will be after the waves so far. */
class LayerDraft {
  readonly held: Int32Array;
  readonly target: Int32Array;
  readonly slotsPerGpu: number;
  readonly nodeOfSlot: Int32Array;
  /** Slots that hold each expert. */
  readonly count: Int32Array;
  /** Slots lent to break a ring, and the slot whose copy ends the loan. */
  readonly lent = new Map<number, number>();
  readonly waves: Wave[] = [];
  /** Scratch of `findRings`: the only slot of each expert, and the walk that met each slot. */
  readonly holder: Int32Array;
  readonly visit: Int32Array;
  skipped = 0;

  constructor({ held, target, numLogical, slotsPerGpu, nodeOfSlot }: LayerProblem) {
    this.held = held.slice();
    this.target = target.map((expert, slot) => (expert < 0 ? (held[slot] as number) : expert));
    this.slotsPerGpu = slotsPerGpu;
    this.nodeOfSlot = nodeOfSlot;
    this.count = new Int32Array(numLogical);
    this.holder = new Int32Array(numLogical);
    this.visit = new Int32Array(held.length);
    for (const expert of held) {
      if (expert >= 0) this.count[expert] = (this.count[expert] as number) + 1;
    }
  }

  /** Slots that do not hold their target yet; empty ones first, for they can be written at once. */
  todo(): number[] {
    const slots: number[] = [];
    const { held, target } = this;
    for (let slot = 0; slot < held.length; slot++) {
      if (target[slot] !== held[slot] && held[slot] === -1) slots.push(slot);
    }
    for (let slot = 0; slot < held.length; slot++) {
      if (target[slot] !== held[slot] && held[slot] !== -1) slots.push(slot);
    }
    return slots;
  }

  gpuOf(slot: number): number {
    return Math.floor(slot / this.slotsPerGpu);
  }

  /** Whether what the slot holds is also elsewhere, or is nothing. */
  isFree(slot: number): boolean {
    const expert = this.held[slot] as number;
    return expert < 0 || (this.count[expert] as number) > 1;
  }

  swapTargets(a: number, b: number): void {
    const target = this.target[a] as number;
    this.target[a] = this.target[b] as number;
    this.target[b] = target;
  }

  apply(wave: Wave): void {
    this.waves.push(wave);
    for (const { expert, to } of wave.flat()) {
      const old = this.held[to] as number;
      if (old >= 0) this.count[old] = (this.count[old] as number) - 1;
      this.count[expert] = (this.count[expert] as number) + 1;
      this.held[to] = expert;
    }
    for (const [slot, until] of this.lent) {
      if (this.held[until] === this.target[until]) this.lent.delete(slot);
    }
  }
}

/**
 * Rings of slots that only trade experts: each holds the only replica of what the next one wants.
 * No slot of a ring can be written first. Everything else resolves by itself.
 */
function findRings(draft: LayerDraft, todo: readonly number[]): number[][] {
  const { held, target, holder, visit } = draft;
  holder.fill(-1);
  visit.fill(0);
  for (const slot of todo) if (!draft.isFree(slot)) holder[held[slot] as number] = slot;
  const rings: number[][] = [];
  let walk = 0;
  for (const start of todo) {
    if (draft.isFree(start) || visit[start] !== 0) continue;
    walk++;
    let slot = start;
    while (slot >= 0 && visit[slot] === 0) {
      visit[slot] = walk;
      slot = holder[target[slot] as number] as number;
    }
    if (slot < 0 || visit[slot] !== walk) continue;
    const ring: number[] = [];
    for (let member = slot; ring.length === 0 || member !== slot; ) {
      ring.push(member);
      member = holder[target[member] as number] as number;
    }
    rings.push(ring);
  }
  return rings;
}

/**
 * Lets free slots open rings for nothing: a slot that is to be written anyway takes the target of
 * a ring's slot on the same GPU, which takes its target in return.
 */
function openRingsByTodo(draft: LayerDraft, todo: readonly number[]): void {
  const free = new Map<number, number>();
  for (const slot of todo) {
    if (draft.isFree(slot) && !draft.lent.has(slot)) free.set(draft.gpuOf(slot), slot);
  }
  for (const ring of findRings(draft, todo)) {
    const slot = ring.find((member) => free.has(draft.gpuOf(member)));
    if (slot !== undefined) draft.swapTargets(slot, free.get(draft.gpuOf(slot)) as number);
  }
}

/**
 * Opens rings through slots that are done but redundant; called when nothing else can move. Rings
 * that share a GPU wait for the first of them, whose free slot then opens the others for nothing.
 *
 * @returns whether a ring was opened.
 */
function openRingsByLoan(draft: LayerDraft, rings: readonly number[][]): boolean {
  const gpusUsed = new Set<number>();
  const left = draft.count.slice();
  let opened = false;
  for (const ring of rings) {
    const gpus = ring.map((slot) => draft.gpuOf(slot));
    const shared = gpus.some((gpu) => gpusUsed.has(gpu));
    for (const gpu of gpus) gpusUsed.add(gpu);
    if (shared) continue;
    const loan = findLoan(draft, ring, left);
    if (loan === undefined) continue;
    const { lender, member } = loan;
    const expert = draft.held[lender] as number;
    left[expert] = (left[expert] as number) - 1;
    opened = true;
    if (draft.gpuOf(lender) === draft.gpuOf(member)) {
      draft.swapTargets(lender, member);
    } else {
      const kept = draft.held[member] as number;
      draft.apply([[{ expert: kept, from: member, to: lender }]]);
      draft.lent.set(lender, member);
    }
  }
  return opened;
}

/** A redundant slot, best on a GPU of the ring, where it costs one copy and not two, else near. */
function findLoan(
  draft: LayerDraft,
  ring: readonly number[],
  left: Int32Array,
): { readonly lender: number; readonly member: number } | undefined {
  let nearby: { readonly lender: number; readonly member: number } | undefined;
  let elsewhere: typeof nearby;
  for (let slot = 0; slot < draft.held.length; slot++) {
    const expert = draft.held[slot] as number;
    if (expert < 0 || (left[expert] as number) < 2 || draft.lent.has(slot)) continue;
    const member = ring.find((other) => draft.gpuOf(other) === draft.gpuOf(slot));
    if (member !== undefined) return { lender: slot, member };
    elsewhere ??= { lender: slot, member: ring[0] as number };
    if (nearby !== undefined) continue;
    const near = ring.find((other) => draft.nodeOfSlot[other] === draft.nodeOfSlot[slot]);
    if (near !== undefined) nearby = { lender: slot, member: near };
  }
  return nearby ?? elsewhere;
}

/** What is already chosen for a wave: slots to be written, reads by GPU, replicas given up. */
class WaveDraft {
  readonly groups: CopyGroup[] = [];
  readonly #draft: LayerDraft;
  readonly #written = new Set<number>();
  readonly #read = new Set<number>();
  readonly #reads = new Map<number, number>();
  readonly #dropped = new Map<number, number>();
  readonly #fetched = new Set<number>();

  constructor(draft: LayerDraft) {
    this.#draft = draft;
  }

  /** Takes a whole ring; its slots keep what they hold until all have arrived. */
  addRing(ring: readonly number[]): void {
    const { held, target } = this.#draft;
    const at = new Map(ring.map((slot) => [held[slot] as number, slot]));
    for (const slot of ring) {
      this.#written.add(slot);
      this.#read.add(slot);
    }
    this.groups.push(
      ring.map((to) => {
        const expert = target[to] as number;
        return { expert, from: at.get(expert) as number, to };
      }),
    );
  }

  /** Takes the copy into `slot`, unless this wave cannot hold it. */
  tryAdd(slot: number): void {
    const { held, target, count, lent } = this.#draft;
    if (this.#written.has(slot) || this.#read.has(slot) || lent.has(slot)) return;
    const old = held[slot] as number;
    const dropped = old < 0 ? 0 : (this.#dropped.get(old) ?? 0);
    if (old >= 0 && (count[old] as number) - dropped < 2) return;
    const expert = target[slot] as number;
    const from = this.#source(expert, slot);
    if (from === undefined) return;
    if (old >= 0) this.#dropped.set(old, dropped + 1);
    this.#written.add(slot);
    if (from >= 0) {
      this.#read.add(from);
      const gpu = this.#draft.gpuOf(from);
      this.#reads.set(gpu, (this.#reads.get(gpu) ?? 0) + 1);
    } else {
      this.#fetched.add(expert);
    }
    this.groups.push([{ expert, from, to: slot }]);
  }

  /** Where to read from: the same GPU, else the same node, and there the GPU with fewest reads. */
  #source(expert: number, to: number): number | undefined {
    const draft = this.#draft;
    if (draft.count[expert] === 0) return this.#fetched.has(expert) ? undefined : -1;
    let best: number | undefined;
    let bestCost = Number.POSITIVE_INFINITY;
    for (let slot = 0; slot < draft.held.length; slot++) {
      if (draft.held[slot] !== expert || this.#written.has(slot)) continue;
      const gpu = draft.gpuOf(slot);
      if (gpu === draft.gpuOf(to)) return slot;
      const remote = draft.nodeOfSlot[slot] === draft.nodeOfSlot[to] ? 0 : draft.held.length;
      const cost = remote + (this.#reads.get(gpu) ?? 0);
      if (cost < bestCost) {
        best = slot;
        bestCost = cost;
      }
    }
    return best;
  }
}

/** Cuts rings so that each passes a GPU once: one staging buffer a GPU is then enough. */
function cutRings(draft: LayerDraft, todo: readonly number[]): number[][] {
  for (const ring of findRings(draft, todo)) {
    const onGpu = new Map<number, number>();
    for (const slot of ring) {
      const earlier = onGpu.get(draft.gpuOf(slot));
      if (earlier === undefined) onGpu.set(draft.gpuOf(slot), slot);
      else {
        draft.swapTargets(earlier, slot);
        return cutRings(draft, draft.todo());
      }
    }
  }
  return findRings(draft, todo);
}

function nextWave(draft: LayerDraft, todo: readonly number[], staging: Staging): Wave {
  const wave = new WaveDraft(draft);
  if (staging === "double-buffer") for (const ring of cutRings(draft, todo)) wave.addRing(ring);
  else openRingsByTodo(draft, todo);
  // Targets may have been traded, so what is still to be done is asked again.
  for (const slot of draft.todo()) wave.tryAdd(slot);
  return wave.groups;
}

/**
 * Orders one layer's copies. After every wave, and after every part of one, each expert that had a
 * slot has one; copies of a wave never read a slot that the wave writes, rings in staging apart.
 *
 * Every ring costs one copy more than its length in place (two if no redundant slot is on its
 * GPUs, none if a slot that is written anyway is there), and nothing with staging buffers.
 */
export function planLayer(problem: LayerProblem): LayerMoves {
  const draft = new LayerDraft(problem);
  const wavesMax = 4 * problem.held.length + 4;
  for (;;) {
    const todo = draft.todo();
    if (todo.length === 0) break;
    if (draft.waves.length > wavesMax) {
      throw new InfraError("internal", `no order of ${todo.length} copies found; this is a defect`);
    }
    const wave = nextWave(draft, todo, problem.staging);
    if (wave.length > 0) {
      draft.apply(wave);
      continue;
    }
    const left = draft.todo();
    if (left.length === 0) break;
    if (openRingsByLoan(draft, findRings(draft, left))) continue;
    draft.skipped = left.length;
    break;
  }
  return { waves: draft.waves, final: draft.held, skipped: draft.skipped };
}
