// The sum of the gradients of the two copies of a stage, on both ranks that hold one. For schedules
// with two directions; the original leaves it to its caller, as an all-gather and an addition.

import { InputError } from "@open-infra/errors";
import { decodeInto, encodeInto, Tensor } from "@open-infra/tensor";
import type { MicroBatch } from "./micro-batches.ts";
import type { PipelineRunner, PlacedStage } from "./runner.ts";
import { type Message, MessageKind, messageKey, type Transport } from "./transport.ts";

/** The gradients of a stage, or why there are none. */
async function gradientsOf({ model, direction, stage }: PlacedStage): Promise<MicroBatch> {
  const gradients = await model.gradients?.();
  if (gradients !== undefined) return gradients;
  const which = `stage ${stage} of direction ${direction}`;
  throw new InputError(`gradients of ${which}`, "absent", "a method that gives Tensor[]");
}

/** Adds `other` to `sum`, element by element, rounded once to their dtype. */
function addInto(sum: Tensor, other: Tensor): void {
  if (sum.dtype !== other.dtype || `${sum.shape}` !== `${other.shape}`) {
    throw new InputError(
      "gradient",
      other.describe(),
      `${sum.dtype}[${sum.shape}], as its copy is`,
    );
  }
  const to = sum.raw();
  const from = other.raw();
  if (to instanceof Float64Array || to instanceof Float32Array) {
    for (let i = 0; i < to.length; i++) (to[i] as number) += from[i] as number;
    return;
  }
  const a = new Float64Array(sum.size);
  const b = new Float64Array(sum.size);
  decodeInto(sum.dtype, to, a);
  decodeInto(other.dtype, from, b);
  for (let i = 0; i < a.length; i++) (a[i] as number) += b[i] as number;
  encodeInto(sum.dtype, a, to);
}

/** What both ranks must bring alike, stage by stage, as text to compare. */
function describeGradients(gradients: readonly MicroBatch[]): string {
  return gradients.map((of) => of.map(({ dtype, shape }) => `${dtype}[${shape}]`)).join("; ");
}

/** By what the transport has for it: the group's reducer. Stages in one order on both ranks. */
async function addUp(
  runner: PipelineRunner,
  transport: Transport & Required<Pick<Transport, "addUp">>,
  peer: number,
  step: number,
): Promise<void> {
  const ordered = runner.stages.toSorted((a, b) => a.stage - b.stage);
  const gradients = await Promise.all(ordered.map(gradientsOf));
  const own = describeGradients(gradients);
  const key = messageKey(MessageKind.Sync, 0, 0, 0, step);
  const text = new TextEncoder().encode(own);
  const receive = transport.receive(peer, key);
  const note = Tensor.from(text, [text.length], "u8");
  await transport.send(peer, key, [note], runner.timeoutMs);
  const { tensors, release } = receive.poll() ?? (await receive.wait(runner.timeoutMs));
  const theirs = new TextDecoder().decode(tensors[0]?.bytes().slice());
  release();
  if (theirs !== own) {
    throw new InputError("gradients of the other copies", theirs, `${own}, as here`);
  }
  await transport.addUp(peer, gradients.flat());
}

/** By messages of their own, added here. */
async function exchange(runner: PipelineRunner, peer: number, step: number): Promise<void> {
  const { transport, stages } = runner;
  const gradients = await Promise.all(stages.map(gradientsOf));
  const received = stages.map(({ direction, stage }) =>
    transport.receive(peer, messageKey(MessageKind.Sync, 1 - direction, stage, 0, step)),
  );
  for (const [i, { direction, stage }] of stages.entries()) {
    const key = messageKey(MessageKind.Sync, direction, stage, 0, step);
    await transport.send(peer, key, gradients[i] as MicroBatch, runner.timeoutMs);
  }
  for (const [i, receive] of received.entries()) {
    const message: Message = receive.poll() ?? (await receive.wait(runner.timeoutMs));
    const own = gradients[i] as MicroBatch;
    if (message.tensors.length !== own.length) {
      const got = `${message.tensors.length} tensors`;
      throw new InputError("gradients of the other copy", got, `${own.length}, as here`);
    }
    message.tensors.forEach((tensor, t) => {
      addInto(own[t] as Tensor, tensor);
    });
    message.release();
  }
}

/**
 * Adds up the gradients of both stages of this rank with their other copies, which are on one other
 * rank: by hfreduce where the transport is a group of ranks, else by messages. A sum of two is the
 * same in either order, so both ranks get the same bits. Without a second direction there is
 * nothing to do.
 *
 * @throws InputError where the copies' gradients do not match, PipelineAbortedError,
 *   WaitTimeoutError.
 */
export async function syncGradients(runner: PipelineRunner): Promise<void> {
  const { transport, rank, stages } = runner;
  const step = runner.nextStep();
  if (!stages.some(({ direction }) => direction === 1)) return;
  const peer = runner.transportRank(transport.numRanks - 1 - rank);
  try {
    if (hasAddUp(transport)) await addUp(runner, transport, peer, step);
    else await exchange(runner, peer, step);
  } catch (error) {
    transport.abort(error as Error);
    throw error;
  }
}

function hasAddUp(
  transport: Transport,
): transport is Transport & Required<Pick<Transport, "addUp">> {
  return transport.addUp !== undefined;
}
