// Tensors between neighbours of the ring of ranks, with a bounded number on their way.

import { InputError } from "@open-infra/errors";
import type { CommEvent } from "@open-infra/ranks";
import { expectContiguous, type Tensor } from "@open-infra/tensor";
import { expectCount } from "../config.ts";
import { BufferStateError } from "../errors.ts";
import { flagKinds } from "./capacity.ts";
import type { ElasticCore } from "./core.ts";
import { expectRoom } from "./dispatch-job.ts";
import { receiveKernel, sendKernel } from "./kernels.ts";
import { alignUp, getPpBufferSizeHint } from "./sizes.ts";

/** How a tensor is sent or received. */
export interface PipelineOptions {
  /** Return at once; the tensor belongs to the operation until the event is done. */
  readonly asyncWithComputeStream?: boolean;
  readonly numSms?: number;
}

/** From rank r to r + 1, and from r to r − 1. With two ranks both are neighbours of each other. */
const channels = { forward: 0, backward: 1 } as const;

/** The pipeline side of an ElasticBuffer. */
export class Pipeline {
  readonly #core: ElasticCore;
  #slotBytes = 0;
  #slots = 0;
  #maxBytes = 0;
  readonly #sent = [0, 0];
  readonly #received = [0, 0];

  constructor(core: ElasticCore) {
    this.#core = core;
  }

  /** Called between barriers. */
  configure(maxTensorBytes: number, maxInflightTensors: number): void {
    expectCount("numMaxTensorBytes", maxTensorBytes, 1);
    expectCount("numMaxInflightTensors", maxInflightTensors, 1);
    expectRoom(this.#core, "ppSetConfig", getPpBufferSizeHint(maxTensorBytes, maxInflightTensors));
    // Whatever is still on its way would lie in other slots now.
    if (this.#slots > 0 && this.#unfinished()) {
      throw new BufferStateError("ppSetConfig while tensors are on their way");
    }
    this.#maxBytes = maxTensorBytes;
    this.#slotBytes = alignUp(maxTensorBytes, 64);
    this.#slots = maxInflightTensors;
  }

  send(t: Tensor, dstRank: number, options: PipelineOptions): CommEvent {
    const { rank, size } = this.#core.group;
    const channel = this.#channel("dstRank", dstRank, (rank + 1) % size);
    return this.#run("send", t, dstRank, channel, options);
  }

  receive(t: Tensor, srcRank: number, options: PipelineOptions): CommEvent {
    const { rank, size } = this.#core.group;
    const channel = this.#channel("srcRank", srcRank, (rank + size - 1) % size);
    return this.#run("receive", t, srcRank, channel, options);
  }

  #channel(name: string, peer: number, forwardPeer: number): number {
    const { rank, size } = this.#core.group;
    const neighbours = [(rank + size - 1) % size, (rank + 1) % size];
    if (!neighbours.includes(peer)) {
      throw new InputError(name, `${peer}`, `a neighbour of ${rank}: ${neighbours.join(" or ")}`);
    }
    return peer === forwardPeer ? channels.forward : channels.backward;
  }

  #run(
    way: "send" | "receive",
    t: Tensor,
    peer: number,
    channel: number,
    options: PipelineOptions,
  ): CommEvent {
    if (this.#slots === 0) throw new BufferStateError("call ppSetConfig first");
    expectContiguous(`pp ${way}`, "t", t);
    if (t.byteLength > this.#maxBytes) {
      throw new InputError("t", `${t.byteLength} bytes`, `at most ${this.#maxBytes}`);
    }
    const counts = way === "send" ? this.#sent : this.#received;
    const number = (counts[channel] as number) + 1;
    counts[channel] = number;
    const { window, work, plan } = this.#core;
    const values = {
      window,
      work,
      x: t,
      bytes: t.byteLength,
      peer,
      channel,
      number,
      slots: this.#slots,
      slot_bytes: this.#slotBytes,
      data_at: plan.dataAt,
    };
    const kernel = way === "send" ? sendKernel : receiveKernel;
    const threads = this.#core.threads(options.numSms ?? 0);
    const wait = !options.asyncWithComputeStream;
    return this.#core.launch(kernel, values, { operation: `pipeline ${way}`, ...threads, wait });
  }

  /** Whether this rank has sent what was not received, as far as it knows. */
  #unfinished(): boolean {
    const { window, size } = this.#core;
    return this.#sent.some((sent, channel) => window.flag(flagKinds * size + 2 + channel) < sent);
  }
}
