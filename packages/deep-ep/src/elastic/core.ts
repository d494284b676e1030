// What the parts of an ElasticBuffer share: the group, the window, the order of operations, and
// who is reached how.

import type { ParamLayout } from "@open-infra/jit";
import {
  type CommEvent,
  type CommKernel,
  type CommValues,
  doneEvent,
  type Group,
  type KernelRun,
  type Window,
} from "@open-infra/ranks";
import { Tensor } from "@open-infra/tensor";
import { EventOverlap } from "../event.ts";
import type { RecordShape, WindowPlan } from "./capacity.ts";
import { ResultMemory } from "./memory.ts";

/** How a kernel reaches a rank; as in kernels/elastic.h. */
const reachOf = { link: 0, window: 1, memory: 2 } as const;

/** What a core is made of. */
export interface CoreInit {
  readonly group: Group;
  readonly window: Window;
  readonly plan: WindowPlan;
  readonly numBytes: number;
  readonly scaleout: number;
  readonly scaleup: number;
  readonly allowMultipleReduction: boolean;
  readonly directMemory: boolean;
  readonly keptResultBytes: number;
}

/** The state of one buffer on one rank. */
export class ElasticCore {
  readonly group: Group;
  readonly window: Window;
  readonly plan: WindowPlan;
  readonly numBytes: number;
  readonly scaleout: number;
  readonly scaleup: number;
  readonly allowMultipleReduction: boolean;
  /** Counters that the threads of a launch share. */
  readonly work: Tensor<"i64"> = Tensor.empty([32], "i64");
  /** How each rank is reached. */
  readonly reach: Tensor<"u8">;
  readonly allMemory: boolean;
  /** Some ranks are behind links. */
  readonly linked: boolean;
  readonly memory: ResultMemory;
  readonly #own: WeakSet<CommEvent> = new WeakSet();
  readonly #counters = new Map<string, number>();

  constructor(init: CoreInit) {
    this.group = init.group;
    this.window = init.window;
    this.plan = init.plan;
    this.numBytes = init.numBytes;
    this.scaleout = init.scaleout;
    this.scaleup = init.scaleup;
    this.allowMultipleReduction = init.allowMultipleReduction;
    this.memory = new ResultMemory(init.keptResultBytes);
    this.reach = Tensor.empty([init.group.size], "u8");
    for (let rank = 0; rank < init.group.size; rank++) {
      const link = init.group.linkOf(rank);
      const mapped = init.window.isMapped(rank) ? "window" : "link";
      const memory = rank === init.group.rank || (link === "heap" && init.directMemory);
      this.reach.raw()[rank] = reachOf[memory ? "memory" : mapped];
    }
    const reached = [...this.reach.raw()];
    this.allMemory = reached.every((how) => how === reachOf.memory);
    this.linked = reached.includes(reachOf.link);
  }

  get size(): number {
    return this.group.size;
  }

  /** The next number of a kind of operation, from 1; the same on all ranks. */
  next(kind: string): number {
    const number = (this.#counters.get(kind) ?? 0) + 1;
    this.#counters.set(kind, number);
    return number;
  }

  /** What records of tokens depend on. */
  recordShape(numMaxTokensPerRank: number, numTopk: number): RecordShape {
    const { size: numRanks, scaleout, scaleup, allMemory } = this;
    return { numRanks, scaleout, scaleup, numMaxTokensPerRank, numTopk, allMemory };
  }

  /**
   * Launches a kernel in the order of the communication stream. One that is waited for runs on this
   * thread where nothing is queued, which spares two changes of threads.
   */
  launch<L extends ParamLayout>(
    kernel: CommKernel<L>,
    values: CommValues<L>,
    options: KernelRun & { readonly wait: boolean },
  ): CommEvent {
    if (options.wait) {
      this.group.run(kernel, {}, values, options);
      return doneEvent;
    }
    const event = this.group.enqueue(kernel, {}, values, options);
    this.#own.add(event);
    return event;
  }

  /** Waits for what happens elsewhere before this buffer's stream goes on. */
  settle(event: EventOverlap | CommEvent | undefined): void {
    if (event === undefined) return;
    const point = event instanceof EventOverlap ? event.event : event;
    if (!this.#own.has(point)) point.wait();
  }

  /** Threads of a launch for an asked number of SMs. */
  threads(numSms: number): { readonly threads?: number } {
    return numSms > 0 ? { threads: numSms } : {};
  }
}
