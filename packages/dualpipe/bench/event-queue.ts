// The plain way to simulate a pipeline: operations as objects, inputs as names in a map, and a
// queue of events in the order of time. It is what the bench compares with, and a second opinion
// for tests: it shares no code with the simulator. Slow on purpose of being plain.

import { type Op, opAt, type Schedule } from "../src/index.ts";

/** How long operations and transfers take. */
export interface PlainTimes {
  duration(op: Op, rank: number): number;
  /** From the end of an operation until its result can be used on another rank. */
  latency(from: number, to: number): number;
}

/** One operation as it ran. */
export interface PlainRun {
  readonly op: Op;
  readonly start: number;
  readonly end: number;
}

export interface PlainResult {
  readonly makespan: number;
  readonly idle: readonly number[];
  /** By rank, in order; transfers left out. */
  readonly runs: readonly (readonly PlainRun[])[];
  /** Ranks that could not go on. */
  readonly stuck: readonly number[];
}

interface Event {
  readonly time: number;
  readonly rank: number;
  /** Set if the event is the end of an operation. */
  readonly ended?: Op;
  /** Set if the event is an arrival. */
  readonly arrived?: string;
}

/** A binary heap by time. */
class EventQueue {
  readonly #heap: Event[] = [];

  push(event: Event): void {
    const heap = this.#heap;
    let at = heap.push(event) - 1;
    while (at > 0) {
      const parent = (at - 1) >> 1;
      if ((heap[parent] as Event).time <= event.time) break;
      heap[at] = heap[parent] as Event;
      at = parent;
    }
    heap[at] = event;
  }

  pop(): Event | undefined {
    const heap = this.#heap;
    const top = heap[0];
    const last = heap.pop();
    if (top === undefined || last === undefined || heap.length === 0) return top;
    let at = 0;
    for (;;) {
      let child = 2 * at + 1;
      if (child >= heap.length) break;
      if (
        child + 1 < heap.length &&
        (heap[child + 1] as Event).time < (heap[child] as Event).time
      ) {
        child++;
      }
      if ((heap[child] as Event).time >= last.time) break;
      heap[at] = heap[child] as Event;
      at = child;
    }
    heap[at] = last;
    return top;
  }
}

interface Half {
  readonly direction: number;
  readonly stage: number;
  readonly microBatch: number;
}

const name = (what: string, { direction, microBatch }: Half, stage: number): string =>
  `${what} ${direction} ${stage} ${microBatch}`;

/** What an operation waits for, by name. */
function needs(op: Op, numStages: number): string[] {
  const forward = (half: Half): string[] =>
    half.stage === 0 ? [] : [name("input", half, half.stage)];
  const backward = (half: Half): string[] => [
    name("kept", half, half.stage),
    ...(half.stage === numStages - 1 ? [] : [name("gradient", half, half.stage)]),
  ];
  if (op.kind === "F") return forward(op);
  if (op.kind === "W") return [name("split", op, op.stage)];
  if (op.kind === "FB") return [...forward(op), ...backward(op.pair as Half)];
  return backward(op);
}

/** What an operation gives, and to which stage. */
function gives(op: Op): { readonly what: string; readonly half: Half; readonly stage: number }[] {
  const forward = (half: Half) => [
    { what: "kept", half, stage: half.stage },
    { what: "input", half, stage: half.stage + 1 },
  ];
  const backward = (half: Half) => [
    { what: "split", half, stage: half.stage },
    { what: "gradient", half, stage: half.stage - 1 },
  ];
  if (op.kind === "F") return forward(op);
  if (op.kind === "W") return [];
  if (op.kind === "FB") return [...forward(op), ...backward(op.pair as Half)];
  return backward(op);
}

/** Runs a schedule by events, in dataflow fashion: sends and receives are left out. */
export function simulateByEvents(schedule: Schedule, times: PlainTimes): PlainResult {
  const { numStages, rankOf } = schedule;
  const lists = schedule.ranks.map((ops) =>
    Array.from({ length: ops.length }, (_, i) => opAt(ops, i)).filter(
      ({ kind }) => !kind.startsWith("Send") && !kind.startsWith("Recv"),
    ),
  );
  const runs: PlainRun[][] = lists.map(() => []);
  const running = lists.map(() => false);
  const arrived = new Set<string>();
  const queue = new EventQueue();
  lists.forEach((_, rank) => {
    queue.push({ time: 0, rank });
  });
  let makespan = 0;
  for (let event = queue.pop(); event !== undefined; event = queue.pop()) {
    const { time, rank, ended } = event;
    if (event.arrived !== undefined) arrived.add(event.arrived);
    if (ended !== undefined) {
      running[rank] = false;
      makespan = Math.max(makespan, time);
      for (const { what, half, stage } of gives(ended)) {
        if (stage < 0 || stage >= numStages) continue;
        const to = rankOf[half.direction * numStages + stage] as number;
        const latency = to === rank ? 0 : times.latency(rank, to);
        if (to === rank) arrived.add(name(what, half, stage));
        else queue.push({ time: time + latency, rank: to, arrived: name(what, half, stage) });
      }
    }
    const next = lists[rank]?.[runs[rank]?.length as number];
    if (running[rank] || next === undefined) continue;
    if (!needs(next, numStages).every((input) => arrived.has(input))) continue;
    const end = time + times.duration(next, rank);
    running[rank] = true;
    runs[rank]?.push({ op: next, start: time, end });
    queue.push({ time: end, rank, ended: next });
  }
  const busy = runs.map((list) => list.reduce((sum, { start, end }) => sum + end - start, 0));
  const stuck = lists.flatMap((list, rank) =>
    (runs[rank] as PlainRun[]).length < list.length ? [rank] : [],
  );
  return { makespan, idle: busy.map((time) => makespan - time), runs, stuck };
}
