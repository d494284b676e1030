// One step on one rank: walks the operations in order and calls the stages.
//
// The data's way. A forward takes its input from the batch (first stage), from a stage of this
// rank, or from a message whose receive was posted earlier in the list; it gives its output to a
// stage of this rank or to a send that follows in the list, which copies it once, into memory that
// the receiver reads in place. A cell (direction, stage, micro-batch) keeps its input, what the
// stage saved and the output's gradient from its forward until its B or W, then all of it is let go
// at once. Only a cell waits: for its own messages, and for receivers that are far behind.

import { OpKind } from "../schedule/schedule.ts";
import { checkGradients, givenTensors } from "./checks.ts";
import { ScheduleExecutionError, StageError } from "./errors.ts";
import { type CellPlace, Exchange, ownMessage } from "./exchange.ts";
import type { MicroBatch } from "./micro-batches.ts";
import {
  type RankParts,
  type StepOutcome,
  type StepStats,
  type StepWork,
  zeroStats,
} from "./parts.ts";
import type { RankProgram } from "./program.ts";
import type { Stage, StageContext, StageForward } from "./stage.ts";
import { type Message, MessageKind, messageKey } from "./transport.ts";
import { WeightGradStore } from "./weight-grad-store.ts";

interface Cell {
  /** Names the cell in `#cells` and its weight gradients in the store. */
  readonly tag: number;
  readonly stage: Stage;
  readonly context: StageContext;
  readonly inputs: Message;
  saved: unknown;
  gradOutputs: Message | undefined;
}

/** Runs one step; use once. */
export class StepRun {
  readonly #parts: RankParts;
  readonly #program: RankProgram;
  readonly #work: StepWork;
  readonly #lane: string;
  readonly #exchange: Exchange;
  readonly #store = new WeightGradStore();
  readonly #cells = new Map<number, Cell>();
  readonly #losses = new Map<number, Float64Array>();
  readonly #outputs = new Map<number, MicroBatch[]>();
  readonly #stats: StepStats = zeroStats();
  /** Sends whose receivers are too far behind. */
  readonly #room: Promise<void>[] = [];
  /** Of the operation that runs. */
  #index = 0;
  /** Cells whose input's gradient is still due. */
  #active = 0;
  /** What runs in a user's code now, so that an error of it is told from one of ours. */
  #calling: { readonly op: string; readonly context: StageContext } | undefined;

  /** @param step Counts the steps of the pipeline; the same on all ranks. */
  constructor(parts: RankParts, program: RankProgram, work: StepWork, step: number) {
    this.#parts = parts;
    this.#program = program;
    this.#work = work;
    this.#lane = `rank ${program.rank}`;
    this.#exchange = new Exchange(parts, program, step, this.#stats);
  }

  /** @throws StageError, PipelineAbortedError, WaitTimeoutError, ScheduleExecutionError */
  async run(): Promise<StepOutcome> {
    const { ops } = this.#program;
    const { onOperation } = this.#parts;
    try {
      for (let i = 0; i < ops.length; i++) {
        this.#index = i;
        onOperation?.(i);
        // Everything is posted before a rank waits: a cell waits for room, not the send itself.
        if (this.#room.length > 0 && (ops.kind[i] as number) <= OpKind.FB) await this.#haveRoom();
        const done = this.#operation(i);
        if (done !== undefined) await done;
      }
      await this.#haveRoom();
    } catch (error) {
      if (this.#calling === undefined) throw error;
      const { op, context } = this.#calling;
      const { rank, direction, stage, microBatch } = context;
      throw new StageError({ rank, op, direction, stage, microBatch }, error);
    }
    onOperation?.(ops.length);
    this.#stats.operations = ops.length;
    this.#checkDone();
    return { losses: this.#losses, outputs: this.#outputs, stats: this.#stats };
  }

  /** Posts an end of a transfer at once; a cell gives a promise. */
  #operation(i: number): Promise<void> | undefined {
    const { ops } = this.#program;
    const kind = ops.kind[i] as OpKind;
    const direction = ops.direction[i] as number;
    const stage = ops.stage[i] as number;
    const microBatch = ops.microBatch[i] as number;
    switch (kind) {
      // A send is named by the cell that made it, a message by the one that uses it.
      case OpKind.SendF:
        this.#send(MessageKind.F, { direction, stage: stage + 1, microBatch });
        return;
      case OpKind.SendB:
        this.#send(MessageKind.B, { direction, stage: stage - 1, microBatch });
        return;
      case OpKind.RecvF:
        this.#exchange.post(MessageKind.F, { direction, stage, microBatch });
        return;
      case OpKind.RecvB:
        this.#exchange.post(MessageKind.B, { direction, stage, microBatch });
        return;
      case OpKind.F:
        return this.#forward({ direction, stage, microBatch });
      case OpKind.B:
        return this.#backward(this.#cellAt({ direction, stage, microBatch }), true);
      case OpKind.I:
        return this.#backward(this.#cellAt({ direction, stage, microBatch }), false);
      case OpKind.W:
        return this.#weights(this.#cellAt({ direction, stage, microBatch }));
      case OpKind.FB:
        return this.#overlapped({ direction, stage, microBatch }, this.#pairOf(i));
      default:
        kind satisfies never;
    }
  }

  #send(kind: MessageKind, user: CellPlace): void {
    const room = this.#exchange.send(kind, user);
    if (room === undefined) return;
    // If the step fails first, nobody comes to await it.
    room.catch(() => {});
    this.#room.push(room);
  }

  async #haveRoom(): Promise<void> {
    await Promise.all(this.#room);
    this.#room.length = 0;
  }

  #pairOf(i: number): Cell {
    const { pairDirection, pairStage, pairMicroBatch } = this.#program.ops;
    return this.#cellAt({
      direction: pairDirection[i] as number,
      stage: pairStage[i] as number,
      microBatch: pairMicroBatch[i] as number,
    });
  }

  async #forward(place: CellPlace): Promise<void> {
    const cell = this.#open(place, await this.#input(place));
    const startUs = this.#begin(MessageKind.F, cell);
    this.#calling = { op: "F", context: cell.context };
    const result = await cell.stage.forward(cell.inputs.tensors, cell.context);
    await this.#forwardDone(cell, result);
    this.#end("F", startUs, cell);
  }

  /** @param whole B; otherwise I, whose weight gradients wait for their W. */
  async #backward(cell: Cell, whole: boolean): Promise<void> {
    const gradOutputs = await this.#takeGradOutputs(cell);
    const op = whole ? "B" : "I";
    const { stage, context } = cell;
    const startUs = this.#begin(MessageKind.B, cell);
    this.#calling = { op, context };
    let gradInputs: MicroBatch;
    if (whole && stage.backward !== undefined) {
      gradInputs = await stage.backward(cell.saved, gradOutputs, context);
    } else gradInputs = await this.#splitBackward(cell, gradOutputs, whole);
    this.#backwardDone(cell, gradInputs, whole);
    this.#end(op, startUs, cell);
  }

  async #splitBackward(cell: Cell, gradOutputs: MicroBatch, whole: boolean): Promise<MicroBatch> {
    const { stage, context } = cell;
    const store = this.#store;
    store.enabled = !whole;
    const gradInputs = await stage.backwardInput(cell.saved, gradOutputs, context);
    if (stage.backwardWeight !== undefined) {
      const due = store.put(() => stage.backwardWeight?.(cell.saved, gradOutputs, context));
      if (due !== undefined) await due;
    }
    store.enabled = false;
    if (!whole) store.flush(cell.tag);
    return gradInputs;
  }

  async #weights(cell: Cell): Promise<void> {
    const startUs = this.#now();
    this.#calling = { op: "W", context: cell.context };
    const found = await this.#store.pop(cell.tag);
    this.#calling = undefined;
    if (!found) this.#fail(`${describeCell(cell.context)} has a W before its I`);
    this.#end("W", startUs, cell);
    this.#close(cell);
  }

  async #overlapped(place: CellPlace, pair: Cell): Promise<void> {
    const model = this.#stageAt(place);
    const together =
      model.overlappedForwardBackward !== undefined && model.constructor === pair.stage.constructor;
    if (!together) {
      await this.#forward(place);
      await this.#backward(pair, true);
      return;
    }
    const cell = this.#open(place, await this.#input(place));
    const gradOutputs = await this.#takeGradOutputs(pair);
    const startUs = this.#begin(MessageKind.F, cell);
    this.#begin(MessageKind.B, pair);
    this.#calling = { op: "FB", context: cell.context };
    const result = await (model as Required<Stage>).overlappedForwardBackward(
      { inputs: cell.inputs.tensors, context: cell.context },
      { stage: pair.stage, saved: pair.saved, gradOutputs, context: pair.context },
    );
    await this.#forwardDone(cell, result);
    this.#calling = { op: "FB", context: pair.context };
    this.#backwardDone(pair, result.gradInputs, true);
    this.#end("FB", startUs, cell, pair);
  }

  /** Sends the output on its way; after the last stage, computes the loss. */
  async #forwardDone(cell: Cell, result: StageForward): Promise<void> {
    const { context } = cell;
    const { direction, stage, microBatch, numStages } = context;
    const outputs = givenTensors("forward", "outputs", result?.outputs, cell.inputs.tensors);
    cell.saved = result.saved;
    if (stage + 1 < numStages) {
      this.#exchange.give(MessageKind.F, { direction, stage: stage + 1, microBatch }, outputs);
    } else await this.#lastStageDone(context, outputs);
    this.#calling = undefined;
    if (!context.training) {
      this.#close(cell);
      return;
    }
    this.#active++;
    this.#stats.peakActivations = Math.max(this.#stats.peakActivations, this.#active);
  }

  async #lastStageDone(context: StageContext, outputs: MicroBatch): Promise<void> {
    const { direction, microBatch } = context;
    const { criterion, labels, returnOutputs } = this.#work;
    if (returnOutputs) entryOf(this.#outputs, direction, () => [])[microBatch] = outputs;
    const label = labels.get(direction)?.[microBatch];
    if (criterion === undefined || label === undefined) return;
    this.#calling = { op: "criterion", context };
    const { loss, gradOutputs } = await criterion.forward(outputs, label, context);
    const count = this.#program.microBatchesOf[direction] as number;
    entryOf(this.#losses, direction, () => new Float64Array(count))[microBatch] = loss;
    if (!context.training) return;
    const grads = givenTensors("the criterion", "gradOutputs", gradOutputs, outputs);
    checkGradients("the criterion", grads, outputs);
    this.#exchange.give(MessageKind.B, context, grads);
  }

  #backwardDone(cell: Cell, gradInputs: MicroBatch, whole: boolean): void {
    const { direction, stage, microBatch } = cell.context;
    if (stage > 0) {
      const lent = [...cell.inputs.tensors, ...(cell.gradOutputs as Message).tensors];
      const grads = givenTensors("backward", "gradients of the inputs", gradInputs, lent);
      checkGradients("backward", grads, cell.inputs.tensors);
      this.#exchange.give(MessageKind.B, { direction, stage: stage - 1, microBatch }, grads);
    }
    this.#calling = undefined;
    this.#active--;
    if (whole) this.#close(cell);
  }

  /** From here on the cell's memory is held. */
  #open(place: CellPlace, inputs: Message): Cell {
    const { direction, stage, microBatch } = place;
    const { numStages, inference, rank } = this.#program;
    const context: StageContext = {
      rank,
      direction,
      stage,
      numStages,
      microBatch,
      training: !inference,
      needsInputGrads: stage > 0,
      weightGrads: this.#store,
      recorder: this.#parts.recorder,
    };
    const tag = tagOf(place);
    const model = this.#stageAt(place);
    const cell = { tag, stage: model, context, inputs, saved: undefined, gradOutputs: undefined };
    this.#cells.set(tag, cell);
    this.#stats.peakHeld = Math.max(this.#stats.peakHeld, this.#cells.size);
    return cell;
  }

  /** Lets go of everything a cell held. */
  #close(cell: Cell): void {
    this.#cells.delete(cell.tag);
    cell.saved = undefined;
    cell.inputs.release();
    cell.gradOutputs?.release();
  }

  #cellAt(place: CellPlace): Cell {
    const cell = this.#cells.get(tagOf(place));
    if (cell !== undefined) return cell;
    return this.#fail(`${describeCell(place)} has a backward before its forward, or a second one`);
  }

  #stageAt({ direction, stage }: CellPlace): Stage {
    const found = this.#parts.stageAt(direction, stage);
    if (found !== undefined) return found;
    return this.#fail(`stage ${stage} of direction ${direction} is not on this rank`);
  }

  async #input(place: CellPlace): Promise<Message> {
    if (place.stage > 0) return this.#exchange.take(MessageKind.F, place);
    const tensors = this.#work.inputs.get(place.direction)?.[place.microBatch];
    if (tensors !== undefined) return ownMessage(tensors);
    return this.#fail(`${describeCell(place)} has no input`);
  }

  async #takeGradOutputs(cell: Cell): Promise<MicroBatch> {
    cell.gradOutputs = await this.#exchange.take(MessageKind.B, cell.context);
    return cell.gradOutputs.tensors;
  }

  #now(): number {
    const { recorder } = this.#parts;
    return recorder.enabled ? recorder.now() : 0;
  }

  /** The start of a cell's span, with the arrow from where its tensors came. */
  #begin(kind: MessageKind, { context }: Cell): number {
    const { recorder } = this.#parts;
    if (!recorder.enabled) return 0;
    const startUs = recorder.now();
    this.#exchange.recordArrival(kind, context);
    return startUs;
  }

  #end(op: string, startUs: number, { context }: Cell, pair?: Cell): void {
    const { recorder } = this.#parts;
    if (!recorder.enabled) return;
    const { direction, stage, microBatch } = context;
    const phase = this.#program.ops.phase[this.#index] as number;
    recorder.span(this.#lane, op, startUs, {
      direction,
      stage,
      microBatch,
      ...(phase > 0 && { phase }),
      ...(pair && {
        pairDirection: pair.context.direction,
        pairStage: pair.context.stage,
        pairMicroBatch: pair.context.microBatch,
      }),
    });
  }

  #checkDone(): void {
    const left = [...this.#exchange.leftOver()];
    if (this.#cells.size > 0) left.push(`${this.#cells.size} micro-batches without their B or W`);
    if (left.length === 0) return;
    this.#fail(`the schedule ${this.#program.scheduleName} leaves ${left.join(", ")}`);
  }

  #fail(message: string): never {
    throw new ScheduleExecutionError(this.#program.rank, message);
  }
}

const tagOf = ({ direction, stage, microBatch }: CellPlace): number =>
  messageKey(MessageKind.F, direction, stage, microBatch, 0);

const describeCell = ({ direction, stage, microBatch }: CellPlace): string =>
  `direction ${direction}, stage ${stage}, micro-batch ${microBatch}`;

function entryOf<T>(map: Map<number, T>, key: number, make: () => T): T {
  let value = map.get(key);
  if (value === undefined) {
    value = make();
    map.set(key, value);
  }
  return value;
}
