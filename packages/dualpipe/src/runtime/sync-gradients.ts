// The sum of the gradients of the two copies of a stage, on both ranks that hold one. For schedules
// with two directions; the original leaves it to its caller, as an all-gather and an addition.

import { InputError } from "@open-infra/errors";
import { decodeInto, encodeInto, type Tensor } from "@open-infra/tensor";
import type { MicroBatch } from "./micro-batches.ts";
import type { PipelineRunner, PlacedStage } from "./runner.ts";
import { type Message, MessageKind, messageKey } from "./transport.ts";

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

/**
 * Sends the gradients of both stages of this rank to the rank that holds their other copies, and
 * adds what comes from there. A sum of two is the same in either order, so both ranks get the same
 * bits. Without a second direction there is nothing to do.
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
  } catch (error) {
    transport.abort(error as Error);
    throw error;
  }
}
