// A computation that follows a form: the newest result, why there is none for what the form says
// now, and whether a worker is busy with it.

import { type ReadonlySignal, type Signal, signal } from "@preact/signals";
import { NewestWorker, type WorkerLike, type WorkerReply } from "./newest-worker.ts";

/** Why there is no result for what the form says. */
export interface Problem<Field extends string> {
  /** The field it belongs beside; undefined for what no field holds. */
  readonly field: Field | undefined;
  readonly message: string;
}

/** The newest result, and how it stands to the form. */
export interface Computed<Result, Field extends string> {
  /** Kept while newer inputs are refused. */
  readonly result: Result | null;
  readonly problem: Problem<Field> | null;
  readonly busy: boolean;
}

export interface ComputationOptions<Field extends string> {
  readonly create: () => WorkerLike;
  /** The field that an input error's parameter belongs to. */
  readonly fieldOf: (parameter: string) => Field | undefined;
}

/** Asks a worker of its own whenever the question changes. */
export class Computation<Request, Result, Field extends string> {
  readonly #state: Signal<Computed<Result, Field>> = signal({
    result: null,
    problem: null,
    busy: false,
  });
  readonly #worker: NewestWorker<Request, Result>;
  readonly #fieldOf: (parameter: string) => Field | undefined;
  #asked = "";

  constructor({ create, fieldOf }: ComputationOptions<Field>) {
    this.#fieldOf = fieldOf;
    this.#worker = new NewestWorker({
      create,
      onBusy: (busy) => this.#change({ busy }),
      onReply: (reply) => this.#take(reply),
    });
  }

  get state(): ReadonlySignal<Computed<Result, Field>> {
    return this.#state;
  }

  /** Asks, unless it was the last thing asked; `key` tells questions apart. */
  ask(request: Request, key: string): void {
    if (key === this.#asked) return;
    this.#asked = key;
    this.#worker.ask(request);
  }

  #take(reply: WorkerReply<Result>): void {
    if (reply.kind === "done") this.#change({ result: reply.result, problem: null });
    else {
      const { parameter, message } = reply;
      this.#change({ problem: { field: this.#fieldOf(parameter), message } });
    }
  }

  #change(part: Partial<Computed<Result, Field>>): void {
    this.#state.value = { ...this.#state.peek(), ...part };
  }
}
