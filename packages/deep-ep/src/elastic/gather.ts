// All-gathers in sessions: within a session every gather has bytes of its own in the window, so
// that ranks need not wait for each other before they put; a session ends when all ranks are done
// with its results, and the next one uses the same bytes.

import { InputError } from "@open-infra/errors";
import { pointerOf } from "@open-infra/jit";
import type { CommEvent } from "@open-infra/ranks";
import { byteSize, type DType, expectContiguous, Tensor } from "@open-infra/tensor";
import { expectCount } from "../config.ts";
import { BufferStateError } from "../errors.ts";
import type { ElasticCore } from "./core.ts";
import { expectRoom } from "./dispatch-job.ts";
import { barrierKernel, gatherKernel } from "./kernels.ts";
import { alignUp, listOfShapes } from "./sizes.ts";

/** Gathers of one session, as in the original. */
export const maxGathersPerSession = 32;

/** What an all-gather gives. */
export interface Gathered {
  /**
   * For each tensor `[ranks, ...its shape]`, in the window: valid once `wait` has returned, until
   * the session ends.
   */
  readonly gathered: readonly Tensor[];
  readonly event: CommEvent;
  /** Blocks until every rank's part is there. @throws the group's failure */
  wait(): void;
}

/** The all-gather side of an ElasticBuffer. */
export class GatherSessions {
  readonly #core: ElasticCore;
  #maxBytes = 0;
  #maxGathers = 0;
  #session = 0;
  #inSession = false;
  #usedBytes = 0;
  #gathers = 0;

  constructor(core: ElasticCore) {
    this.#core = core;
  }

  get inSession(): boolean {
    return this.#inSession;
  }

  /** Called between barriers. */
  configure(maxBytes: number, maxGathers: number): void {
    expectCount("numMaxSessionBytes", maxBytes, 1);
    expectCount("numMaxAllGathersPerSession", maxGathers, 1);
    if (maxGathers > maxGathersPerSession) {
      const allowed = `at most ${maxGathersPerSession}`;
      throw new InputError("numMaxAllGathersPerSession", `${maxGathers}`, allowed);
    }
    if (this.#inSession) throw new BufferStateError("agrsSetConfig inside a session");
    expectRoom(this.#core, "agrsSetConfig", maxBytes);
    this.#maxBytes = alignUp(maxBytes, 32);
    this.#maxGathers = maxGathers;
  }

  begin(): void {
    if (this.#inSession) throw new BufferStateError("a session of all-gathers is open already");
    if (this.#maxGathers === 0) throw new BufferStateError("call agrsSetConfig before a session");
    this.#inSession = true;
    this.#session++;
    this.#usedBytes = 0;
    this.#gathers = 0;
  }

  /** Waits until all ranks end the session. */
  end(): void {
    this.#expectSession();
    this.#inSession = false;
    const { group, window } = this.#core;
    const values = { window, epoch: this.#core.next("session"), kind: 1 };
    group.run(barrierKernel, {}, values, { operation: "end of a session of all-gathers" });
  }

  /** This rank's parts of the next gather's results: what is written there is not copied here. */
  inplace(
    shapes: readonly number[] | readonly (readonly number[])[],
    dtype: DType,
  ): readonly Tensor[] {
    this.#expectSession();
    const list = listOfShapes(shapes);
    let at = this.#usedBytes;
    return list.map((shape) => {
      const bytes = byteSize(
        dtype,
        shape.reduce((a, b) => a * b, 1),
      );
      const mine = at + bytes * this.#core.group.rank;
      at = this.#after(at, bytes);
      return this.#core.window.tensor(dtype, shape, this.#core.plan.dataAt + mine);
    });
  }

  /** Begins a gather of one or more tensors. */
  gather(tensors: readonly Tensor[]): Gathered {
    this.#expectSession();
    if (tensors.length === 0) throw new InputError("tensors", "none", "at least one");
    if (this.#gathers >= this.#maxGathers) {
      const allowed = `at most ${this.#maxGathers} in a session, as agrsSetConfig said`;
      throw new InputError("all-gathers", `${this.#gathers + 1}`, allowed);
    }
    const { group, window, plan } = this.#core;
    const parts = Tensor.empty([tensors.length, 3], "i64");
    let at = this.#usedBytes;
    const gathered = tensors.map((tensor, i) => {
      expectContiguous("allGather", `tensors[${i}]`, tensor);
      const bytes = tensor.byteLength;
      const mine = plan.dataAt + at + bytes * group.rank;
      const address = bytes === 0 ? 0 : pointerOf("allGather", tensor);
      this.#expectInplace(address, mine, i);
      parts.raw().set([BigInt(address), BigInt(bytes), BigInt(mine)], i * 3);
      const shape = [group.size, ...tensor.shape];
      const view = window.tensor(tensor.dtype, shape, plan.dataAt + at);
      at = this.#after(at, bytes);
      return view;
    });
    this.#usedBytes = at;
    this.#gathers++;
    const count = tensors.length;
    const values = { window, epoch: this.#core.next("gather"), parts, count };
    const run = { operation: "all-gather", keep: tensors, wait: false };
    const event = this.#core.launch(gatherKernel, values, run);
    const session = this.#session;
    const wait = (): void => {
      if (!this.#inSession || session !== this.#session) {
        throw new BufferStateError("waited for an all-gather of a session that has ended");
      }
      event.wait();
    };
    return { gathered, event, wait };
  }

  #after(at: number, bytes: number): number {
    const next = at + alignUp(bytes * this.#core.size, 32);
    if (next <= this.#maxBytes) return next;
    const allowed = `${this.#maxBytes}, as agrsSetConfig said; end the session for more`;
    throw new InputError("bytes of the session", `${next}`, allowed);
  }

  /** A tensor in the session's bytes must be the one that `inplace` gave for this gather. */
  #expectInplace(address: number, mine: number, index: number): void {
    const { window, plan } = this.#core;
    const offset = address - window.dataAddress(plan.dataAt);
    if (address === 0 || offset < 0 || offset >= this.#maxBytes) return;
    if (offset === mine - plan.dataAt) return;
    const got = `byte ${offset} of the session`;
    throw new InputError(`tensors[${index}]`, got, `byte ${mine - plan.dataAt}, as inplace gives`);
  }

  #expectSession(): void {
    if (!this.#inSession) throw new BufferStateError("no session of all-gathers is open");
  }
}
