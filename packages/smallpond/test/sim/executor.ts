// A simulated executor: it takes messages late, works in virtual time, and dies, freezes, lies
// deaf, says things twice, as its weather has it.

import { serializeError } from "@open-infra/errors";
import type { Random } from "@open-infra/testing";
import { TaskError } from "../../src/errors.ts";
import type { ExecutorHandle } from "../../src/executor/local.ts";
import type { Capacity, FromExecutor, ToExecutor } from "../../src/executor/protocol.ts";
import type { TaskResult } from "../../src/task/task.ts";
import type { VirtualClock } from "./clock.ts";
import type { Truth } from "./graph.ts";
import type { SimStore } from "./store.ts";

/** How bad things are: chances, each in [0, 1]. */
export interface Weather {
  readonly dies: number;
  readonly freezes: number;
  readonly thaws: number;
  readonly neverStarts: number;
  readonly leaves: number;
  readonly low: number;
  readonly duplicates: number;
  readonly deaf: number;
  readonly fails: number;
  readonly wrong: number;
  readonly straggles: number;
  readonly latencyMs: number;
}

type Run = Extract<ToExecutor, { readonly run: unknown }>;

/** What the judge of the simulation sees. */
export interface Witness {
  sent(executor: string, message: Run): void;
  /** The scheduler is about to be told how an attempt ended. */
  answered(executor: string, key: string, attempt: number): void;
  gone(executor: string): void;
  /** An attempt is about to fail for a reason of its own. */
  failing(key: string, reason: string): void;
  violation(text: string): void;
}

interface Working {
  readonly run: Run;
  ended: boolean;
}

export class SimExecutor implements ExecutorHandle {
  readonly pid = 0;
  readonly id: string;
  readonly capacity: Capacity;
  readonly #clock: VirtualClock;
  readonly #random: Random;
  readonly #store: SimStore;
  readonly #truths: ReadonlyMap<string, Truth>;
  readonly #weather: Weather;
  readonly #witness: Witness;
  readonly #working = new Map<string, Working>();
  #take: (message: FromExecutor) => void = () => {};
  #exit: (reason: string) => void = () => {};
  #alive = true;
  /** Until when nothing moves; what would happen, happens then. */
  #frozenUntilMs = 0;
  /** Messages keep their order. */
  #lastInMs = 0;
  #lastOutMs = 0;

  constructor(
    id: string,
    capacity: Capacity,
    parts: {
      readonly clock: VirtualClock;
      readonly random: Random;
      readonly store: SimStore;
      readonly truths: ReadonlyMap<string, Truth>;
      readonly weather: Weather;
      readonly witness: Witness;
    },
  ) {
    this.id = id;
    this.capacity = capacity;
    this.#clock = parts.clock;
    this.#random = parts.random;
    this.#store = parts.store;
    this.#truths = parts.truths;
    this.#weather = parts.weather;
    this.#witness = parts.witness;
  }

  /** Comes up, and lives through what its weather brings. */
  begin(): void {
    const { dies, freezes, thaws, neverStarts, leaves } = this.#weather;
    const random = this.#random;
    if (random.next() >= neverStarts) {
      this.#clock.after(random.int(1, 800), () => {
        this.#say({ ready: this.capacity, engine: "sim" });
        this.#beat();
      });
    }
    const at = (): number => random.int(0, 6000);
    if (random.next() < dies) this.#clock.after(at(), () => this.#die("SIGKILL"));
    if (random.next() < freezes) {
      const forMs = random.next() < thaws ? random.int(500, 8000) : Number.POSITIVE_INFINITY;
      this.#clock.after(at(), () => {
        this.#frozenUntilMs = this.#clock.nowMs + forMs;
      });
    }
    if (random.next() < leaves) {
      this.#clock.after(at(), () => {
        this.#say({ leaving: "its time is over" });
        for (const working of this.#working.values()) this.#fail(working, "stopped");
      });
    }
  }

  onMessage(take: (message: FromExecutor) => void): void {
    this.#take = take;
  }

  onExit(take: (reason: string) => void): void {
    this.#exit = take;
  }

  send(message: ToExecutor): void {
    if ("run" in message) this.#witness.sent(this.id, message);
    // As a wire: what is sent now is what arrives, whatever becomes of the objects.
    const copy = JSON.parse(JSON.stringify(message)) as ToExecutor;
    const atMs = Math.max(this.#lastInMs, this.#clock.nowMs + this.#latency());
    this.#lastInMs = atMs;
    this.#clock.after(atMs - this.#clock.nowMs, () => this.#whenMoving(() => this.#hear(copy)));
  }

  kill(): void {
    this.#die("SIGKILL");
  }

  async close(): Promise<void> {
    this.#clock.after(this.#latency(), () => this.#die("exit code 0"));
  }

  get alive(): boolean {
    return this.#alive;
  }

  #latency(): number {
    return this.#random.next() * this.#weather.latencyMs;
  }

  #die(reason: string): void {
    if (!this.#alive) return;
    this.#alive = false;
    this.#clock.after(this.#latency(), () => {
      this.#witness.gone(this.id);
      this.#exit(reason);
    });
  }

  /** Does something, later if it is frozen, never if it is dead. */
  #whenMoving(act: () => void): void {
    if (!this.#alive) return;
    const waitMs = this.#frozenUntilMs - this.#clock.nowMs;
    if (waitMs <= 0) act();
    else if (waitMs < Number.POSITIVE_INFINITY) {
      this.#clock.after(waitMs, () => this.#whenMoving(act));
    }
  }

  #beat(): void {
    this.#whenMoving(() => {
      const low = this.#random.next() < this.#weather.low;
      const load = { freeMemoryBytes: low ? 1 : 50, totalMemoryBytes: 100 };
      this.#say({ alive: 0, load });
      this.#clock.after(500, () => this.#beat());
    });
  }

  #say(message: FromExecutor): void {
    if (!this.#alive) return;
    const copy = JSON.parse(JSON.stringify(message)) as FromExecutor;
    const atMs = Math.max(this.#lastOutMs, this.#clock.nowMs + this.#latency());
    this.#lastOutMs = atMs;
    const deliver = (): void => {
      if ("done" in copy) this.#witness.answered(this.id, copy.done.key, copy.attempt);
      if ("failed" in copy) this.#witness.answered(this.id, copy.failed, copy.attempt);
      this.#take(copy);
    };
    this.#clock.after(atMs - this.#clock.nowMs, deliver);
    if (this.#random.next() < this.#weather.duplicates) {
      this.#clock.after(atMs - this.#clock.nowMs + this.#random.int(0, 5000), deliver);
    }
  }

  #hear(message: ToExecutor): void {
    if ("run" in message) this.#run(message);
    else if ("stop" in message) {
      const working = this.#working.get(`${message.stop}/${message.attempt}`);
      const deaf = this.#random.next() < this.#weather.deaf;
      if (working !== undefined && !deaf) {
        this.#clock.after(this.#random.int(0, 50), () =>
          this.#whenMoving(() => this.#fail(working, "stopped")),
        );
      }
    }
  }

  #run(run: Run): void {
    const { task, inputs } = run.run;
    const working: Working = { run, ended: false };
    this.#working.set(`${task.key}/${run.attempt}`, working);
    const truth = this.#truths.get(task.key) as Truth;
    const random = this.#random;
    const slow = random.next() < this.#weather.straggles ? 20 : 1;
    const durationMs = truth.durationMs * slow;
    const fails = random.next() < this.#weather.fails;
    const wrong = random.next() < this.#weather.wrong;
    for (const part of inputs.flatMap((data) => data.parts)) {
      const owner = this.#store.ownerOf(part.path) as string;
      // A copy that was told to stop may find its inputs removed; it is not heard any more.
      if (!this.#store.has(owner)) this.#missing(task.key, owner, run.attempt);
    }
    const end = (): void => {
      if (working.ended) return;
      if (run.memoryBytes < truth.needBytes) this.#fail(working, "memory");
      else if (wrong) this.#fail(working, "sql");
      else if (fails) this.#fail(working, random.pick(["internal", "disk", "crash"]));
      else this.#finish(working, truth);
    };
    const early = fails || wrong ? random.next() : 1;
    this.#clock.after(durationMs * early, () => this.#whenMoving(end));
  }

  #missing(key: string, owner: string, attempt: number): void {
    if (this.onMissing(key, attempt)) {
      this.#witness.violation(`${key} ran on ${this.id} and the output of ${owner} is not there`);
    }
  }

  /** Set by the simulation: whether an attempt is one that still counts. */
  onMissing: (key: string, attempt: number) => boolean = () => true;

  #fail(working: Working, reason: string): void {
    if (working.ended || !this.#alive) return;
    working.ended = true;
    const { task } = working.run.run;
    this.#working.delete(`${task.key}/${working.run.attempt}`);
    this.#witness.failing(task.key, reason);
    const error = serializeError(new TaskError(task.node, 1, reason, `simulated ${reason}`));
    this.#say({ failed: task.key, attempt: working.run.attempt, error });
  }

  #finish(working: Working, truth: Truth): void {
    working.ended = true;
    const { task, inputs } = working.run.run;
    this.#working.delete(`${task.key}/${working.run.attempt}`);
    const own = { path: `/job/output/${task.key}/part-0`, numRows: 1, bytes: 1 };
    const parts = truth.passes ? inputs.flatMap((data) => data.parts) : [own];
    const result: TaskResult = {
      key: task.key,
      outputs: [{ format: "parquet", parts }],
      metrics: {
        startedMs: 0,
        elapsedMs: truth.durationMs,
        inputRows: 1,
        outputRows: 1,
        outputBytes: 1,
        cpuMs: 1,
        maxRssBytes: 1,
        executor: this.id,
      },
    };
    const counts = this.#store.commit(result);
    // Renamed, and killed before it could say so.
    if (this.#random.next() < this.#weather.dies / 20) this.#die("SIGKILL");
    else this.#say({ done: counts, attempt: working.run.attempt });
  }
}
