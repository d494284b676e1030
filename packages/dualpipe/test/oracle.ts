// A second, slow opinion for tests: runs a schedule with times by trying every rank over and over,
// with maps and strings, sharing no code with the validator, the placements or the simulator.

import { type Op, opAt, type Schedule } from "../src/index.ts";

/** Seconds of each kind. */
export interface OracleTimes {
  readonly F: number;
  readonly B: number;
  readonly I: number;
  readonly W: number;
  readonly FB: number;
}

export const unit: OracleTimes = { F: 1, B: 2, I: 1, W: 1, FB: 3 };

export interface OracleRun {
  /** Whether every rank came to its end. */
  readonly done: boolean;
  readonly makespan: number;
  readonly idle: readonly number[];
  /** Idle between a rank's first and last cell. */
  readonly spanIdle: readonly number[];
}

export interface OracleOptions {
  readonly times?: OracleTimes;
  /** Cells wait for all ends posted by their rank. */
  readonly rendezvous?: boolean;
  /** Delay of each transfer. */
  readonly delay?: (key: string) => number;
}

class Oracle {
  readonly schedule: Schedule;
  readonly times: OracleTimes;
  readonly rendezvous: boolean;
  readonly delay: (key: string) => number;
  readonly ended = new Map<string, number>();
  readonly sends = new Map<string, number>();
  readonly receives = new Map<string, number>();
  readonly open: string[][];
  readonly clock: number[];
  readonly first: number[];
  readonly busy: number[];

  constructor(schedule: Schedule, options: OracleOptions) {
    this.schedule = schedule;
    this.times = options.times ?? unit;
    this.rendezvous = options.rendezvous ?? false;
    this.delay = options.delay ?? (() => 0);
    this.open = schedule.ranks.map(() => []);
    this.clock = schedule.ranks.map(() => 0);
    this.first = schedule.ranks.map(() => Number.NaN);
    this.busy = schedule.ranks.map(() => 0);
  }

  /** When a transfer is over; NaN if an end is missing. */
  met(key: string): number {
    const send = this.sends.get(key) ?? Number.NaN;
    const receive = this.receives.get(key) ?? Number.NaN;
    return Math.max(send, receive) + this.delay(key);
  }

  rankOf(d: number, s: number): number {
    return this.schedule.rankOf[d * this.schedule.numStages + s] as number;
  }

  /** When what a cell needs is there; NaN for not yet. */
  ready(rank: number, kind: string, d: number, s: number, m: number): number {
    const end = (name: string, stage: number): number =>
      this.ended.get(`${name} ${d} ${stage} ${m}`) ?? Number.NaN;
    const from = (name: string, stage: number): number =>
      this.schedule.hasCommunication && this.rankOf(d, stage) !== rank
        ? this.met(`${name} ${d} ${s} ${m}`)
        : end(name, stage);
    if (kind === "F") return s === 0 ? 0 : from("F", s - 1);
    if (kind === "W") return end("I", s);
    const own = end("F", s);
    return s === this.schedule.numStages - 1 ? own : Math.max(own, from("B", s + 1));
  }

  /** Runs one operation if it can; whether it did. */
  step(rank: number, op: Op): boolean {
    const { kind, direction: d, stage: s, microBatch: m } = op;
    const open = this.open[rank] as string[];
    if (kind.startsWith("Send") || kind.startsWith("Recv")) {
      const isSend = kind.startsWith("Send");
      const name = kind.endsWith("F") ? "F" : "B";
      const stage = isSend ? s + (name === "F" ? 1 : -1) : s;
      const key = `${name} ${d} ${stage} ${m}`;
      (isSend ? this.sends : this.receives).set(key, this.clock[rank] as number);
      open.push(key);
      return true;
    }
    const parts = [this.ready(rank, kind === "FB" ? "F" : kind, d, s, m), this.clock[rank]];
    const { pair } = op;
    if (pair) parts.push(this.ready(rank, "B", pair.direction, pair.stage, pair.microBatch));
    if (this.rendezvous) parts.push(...open.map((key) => this.met(key)));
    const start = Math.max(...(parts as number[]));
    if (Number.isNaN(start)) return false;
    const time = this.times[kind as keyof OracleTimes];
    const end = start + time;
    if (Number.isNaN(this.first[rank])) this.first[rank] = start;
    this.busy[rank] = (this.busy[rank] as number) + time;
    this.clock[rank] = end;
    if (this.rendezvous) open.length = 0;
    if (kind === "F" || kind === "FB") this.ended.set(`F ${d} ${s} ${m}`, end);
    if (kind === "B" || kind === "I") this.ended.set(`B ${d} ${s} ${m}`, end);
    if (kind === "I") this.ended.set(`I ${d} ${s} ${m}`, end);
    if (pair) this.ended.set(`B ${pair.direction} ${pair.stage} ${pair.microBatch}`, end);
    return true;
  }

  run(): OracleRun {
    const { ranks } = this.schedule;
    const at = ranks.map(() => 0);
    for (let moved = true; moved; ) {
      moved = false;
      ranks.forEach((ops, rank) => {
        while ((at[rank] as number) < ops.length) {
          if (!this.step(rank, opAt(ops, at[rank] as number))) break;
          at[rank] = (at[rank] as number) + 1;
          moved = true;
        }
      });
    }
    const makespan = Math.max(0, ...this.clock);
    const unmet = this.open.some((keys) => keys.some((key) => Number.isNaN(this.met(key))));
    return {
      done: ranks.every((ops, rank) => at[rank] === ops.length) && !unmet,
      makespan,
      idle: this.busy.map((busy) => makespan - busy),
      spanIdle: this.busy.map(
        (busy, r) => (this.clock[r] as number) - (this.first[r] as number) - busy,
      ),
    };
  }
}

/** Runs a schedule; see the head of the file. */
export function oracle(schedule: Schedule, options: OracleOptions = {}): OracleRun {
  return new Oracle(schedule, options).run();
}

/** Whether each list has all of its work and transfers once, in an order of its own cells. */
export function isComplete(schedule: Schedule): boolean {
  const { numStages, microBatchesOf, hasCommunication } = schedule;
  const seen = new Map<string, number>();
  const rankOf = (d: number, s: number): number =>
    s < 0 || s >= numStages ? -1 : (schedule.rankOf[d * numStages + s] as number);
  let sound = true;
  schedule.ranks.forEach((ops, rank) => {
    const waiting: string[] = [];
    const add = (kind: string, at: { direction: number; stage: number; microBatch: number }) => {
      const { direction: d, stage: s, microBatch: m } = at;
      const cell = `${d} ${s} ${m}`;
      if (rankOf(d, s) !== rank || !(m >= 0 && m < (microBatchesOf[d] ?? 0))) sound = false;
      if (kind === "W" && waiting.shift() !== cell) sound = false;
      if (kind === "I") waiting.push(cell);
      if (kind === "SendF" && !seen.has(`F ${cell}`)) sound = false;
      if (kind === "SendB" && !seen.has(`B ${cell}`) && !seen.has(`I ${cell}`)) sound = false;
      seen.set(`${kind} ${cell}`, (seen.get(`${kind} ${cell}`) ?? 0) + 1);
    };
    for (let i = 0; i < ops.length; i++) {
      const op = opAt(ops, i);
      add(op.kind === "FB" ? "F" : op.kind, op);
      if (op.pair) add("B", op.pair);
    }
  });
  const expected = new Set<string>();
  microBatchesOf.forEach((count, d) => {
    for (let s = 0; s < numStages; s++) {
      for (let m = 0; m < count; m++) {
        const cell = `${d} ${s} ${m}`;
        const kinds = ["F", ...(seen.has(`I ${cell}`) ? ["I", "W"] : ["B"])];
        const crosses = (t: number): boolean => {
          const peer = rankOf(d, t);
          return hasCommunication && peer >= 0 && peer !== rankOf(d, s);
        };
        if (crosses(s - 1)) kinds.push("RecvF", "SendB");
        if (crosses(s + 1)) kinds.push("SendF", "RecvB");
        for (const kind of kinds) expected.add(`${kind} ${cell}`);
      }
    }
  });
  return (
    sound &&
    seen.size === expected.size &&
    [...seen].every(([key, count]) => count === 1 && expected.has(key))
  );
}
