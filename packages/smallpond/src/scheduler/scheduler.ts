// Decides which task runs where and when: dependencies, resources, retries, stragglers, executors
// that vanish. One scheduler serves all actions of a session. It holds no data, time comes in
// through `tick` and everything else through executors' handles, so that a test can run it in a
// world of its own.

import { deserializeError } from "@open-infra/errors";
import { concatData, type DataSet } from "../dataset/dataset.ts";
import { DiskError, NoExecutorError, SessionClosedError, TaskError } from "../errors.ts";
import type { ExecutorHandle } from "../executor/local.ts";
import type { Capacity, FromExecutor } from "../executor/protocol.ts";
import type { TaskGraph } from "../plan/planner.ts";
import { dataOf, type InputRef, type Task, type TaskResult, tasksOf } from "../task/task.ts";
import { admit } from "./admission.ts";
import { Bulletin } from "./bulletin.ts";
import { infeasible, nobodyCame } from "./demands.ts";
import { Action, type Attempt, Entry } from "./entry.ts";
import type { ExecutorEvent, TaskEvent } from "./events.ts";
import { finalError, judge, reasonOf } from "./failure.ts";
import { NodeTimes } from "./node-times.ts";
import { builtOn, Outputs, ownersOf, type ResultStore } from "./outputs.ts";
import { boosted, ceilingFor, chooseSeat, demandOf, memoryOn } from "./placement.ts";
import { type FaultOptions, type FaultPolicy, faultPolicy } from "./policy.ts";
import { ReadyQueue } from "./ready-queue.ts";
import { Seat } from "./seat.ts";
import { lateEntries } from "./stragglers.ts";
import { lostReason, overdue } from "./watch.ts";

export type { ExecutorEvent, TaskEvent } from "./events.ts";

/** How failures and slowness are met, and who is told of losses. */
export interface SchedulerOptions extends FaultOptions {
  /** Told of each executor that was lost; true if another one will come for it. */
  readonly onLost?: (executor: ExecutorHandle, reason: string) => boolean;
}

/** A task keeps away from so many executors on which it failed last. */
const avoided = 3;

/** Runs task graphs on executors. */
export class Scheduler {
  readonly #store: ResultStore;
  readonly #options: SchedulerOptions;
  readonly #policy: FaultPolicy;
  readonly #outputs: Outputs;
  readonly #entries = new Map<string, Entry>();
  /** Attempts at tasks that were given up, so that no two attempts have one name. */
  readonly #attempts = new Map<string, number>();
  readonly #actions = new Set<Action>();
  readonly #seats = new Set<Seat>();
  /** Executors that were announced and have not been added. */
  readonly #coming: Capacity[] = [];
  readonly #times = new NodeTimes();
  readonly #news = new Bulletin<TaskEvent>();
  readonly #executorNews = new Bulletin<ExecutorEvent>();
  readonly #ready = new ReadyQueue();
  /** Tasks that some action wants and has not got. */
  #unfinished = 0;
  #nowMs = 0;
  /** Since when an action waits and no executor is up. */
  #aloneMs: number | undefined;
  #closed: Error | undefined;

  constructor(store: ResultStore, options: SchedulerOptions = {}) {
    this.#store = store;
    this.#options = options;
    this.#policy = faultPolicy(options);
    this.#outputs = new Outputs(store, this.#policy, (entry) => {
      this.#news.add({ type: "released", task: entry.task, attempt: -1, executor: undefined });
    });
  }

  addExecutor(handle: ExecutorHandle): void {
    const { cpus, memoryBytes } = handle.capacity;
    const announced = this.#coming.findIndex(
      (capacity) => capacity.cpus === cpus && capacity.memoryBytes === memoryBytes,
    );
    if (this.#coming.length > 0) this.#coming.splice(Math.max(0, announced), 1);
    const seat = new Seat(handle, this.#nowMs);
    this.#seats.add(seat);
    const { id, capacity } = handle;
    this.#executorNews.add({ type: "added", executor: id, capacity });
    handle.onMessage((message) => this.#react(() => this.#take(seat, message)));
    handle.onExit((reason) => this.#react(() => this.#lost(seat, reason)));
    this.#react(() => this.#dispatch());
  }

  /** Announces an executor that will be added: what only it could run is not refused meanwhile. */
  expectExecutor(capacity: Capacity): void {
    this.#coming.push(capacity);
  }

  /** An announced executor will not come. */
  expectNoMore(): void {
    this.#coming.length = 0;
    this.#react(() => this.#recheck("no more executors will come"));
  }

  /** Gives an executor no more tasks and lets it end after those it runs. */
  drain(id: string, reason: string): void {
    const seat = [...this.#seats].find(({ handle }) => handle.id === id);
    if (seat !== undefined) this.#react(() => this.#stopSeat(seat, reason));
  }

  get executors(): readonly Seat[] {
    return [...this.#seats];
  }

  /** Bytes of finished outputs, where space is bounded or may be made. */
  get outputBytes(): number {
    return this.#outputs.bytes;
  }

  listen(listener: (event: TaskEvent) => void): () => void {
    return this.#news.listen(listener);
  }

  listenExecutors(listener: (event: ExecutorEvent) => void): () => void {
    return this.#executorNews.listen(listener);
  }

  /**
   * Runs what the roots need and is not done, and gives the roots' data. An action that fails or is
   * aborted takes along what only it wanted, and leaves others alone.
   *
   * @param options.signal Ends the action; its reason is what is thrown.
   * @throws TaskError, InfeasibleTaskError, NoExecutorError, DiskError
   */
  async run(
    graph: TaskGraph,
    options: { readonly signal?: AbortSignal | undefined } = {},
  ): Promise<readonly DataSet[]> {
    if (this.#closed !== undefined) throw this.#closed;
    const { signal } = options;
    signal?.throwIfAborted();
    const action = new Action(graph);
    const abort = (): void => this.#react(() => this.#end(action, signal?.reason));
    signal?.addEventListener("abort", abort, { once: true });
    try {
      this.#react(() => this.#admit(action));
      return await action.ended;
    } finally {
      signal?.removeEventListener("abort", abort);
    }
  }

  /** Ends every action, now and later, with an error. */
  stop(error: Error = new SessionClosedError()): void {
    this.#closed = error;
    this.#react(() => {
      for (const action of [...this.#actions]) this.#end(action, error);
    });
  }

  /**
   * Lets go of results and of those that consist of their files, so that they are computed again
   * when next asked for; of none if a running action reads one. Gives the keys that went.
   */
  forget(refs: readonly InputRef[]): readonly string[] {
    const named = refs.flatMap(tasksOf);
    const keys = builtOn(named, this.#entries.values(), this.#store);
    const entries = keys.map((key) => this.#entries.get(key));
    if (entries.some((entry) => entry?.busy)) return [];
    for (const [i, key] of keys.entries()) {
      const entry = entries[i];
      if (entry !== undefined) this.#attempts.set(key, entry.attempts);
      this.#entries.delete(key);
      this.#outputs.forget(key);
      this.#store.remove(key);
    }
    return keys;
  }

  /** Tells the time: who is silent, whose time is over, who is slow. */
  tick(nowMs: number): void {
    this.#nowMs = nowMs;
    this.#react(() => this.#look());
  }

  #look(): void {
    for (const seat of this.#seats) {
      const reason = lostReason(seat, this.#policy, this.#nowMs);
      if (reason !== undefined) {
        seat.handle.kill();
        this.#lost(seat, reason);
        continue;
      }
      for (const [attempt, error] of overdue(seat, this.#nowMs)) {
        // An earlier one may have ended the action of both.
        if (attempt.over) continue;
        this.#stopAttempt(attempt, false);
        this.#failed(attempt, error);
      }
    }
    this.#expectSomebody();
    if (this.#policy.speculation !== false) this.#speculate();
    this.#dispatch();
  }

  /** Finds what an action needs, from its roots back to what is done, and enters it. */
  #admit(action: Action): void {
    const isDone = ({ key }: Task): boolean => this.#entries.get(key)?.state === "done";
    const { needed, found, skipped } = admit(action.graph, isDone, (task) => this.#find(task));
    const missing = needed.filter((task) => !found.has(task.key) && !isDone(task));
    const problem = infeasible(missing, [...this.#seats], this.#coming);
    if (problem !== undefined) throw problem;
    // What is there stays while the rest is entered, though nobody may read it yet.
    const owners = [...found.values()].flatMap((result) => ownersOf(result, this.#store));
    const keys = [...needed.map(({ key }) => key), ...owners];
    const held = keys.flatMap((key) => this.#entries.get(key) ?? []);
    for (const entry of held) entry.readers++;
    for (const task of needed) this.#enter(action, task, found.get(task.key));
    for (const key of new Set(action.graph.roots.flat().flatMap(tasksOf))) {
      const entry = this.#entries.get(key);
      if (entry !== undefined) action.pin(entry);
    }
    for (const entry of held) this.#leaveUnread(entry);
    for (const task of skipped) {
      if (!isDone(task))
        this.#news.add({ type: "skipped", task, attempt: -1, executor: undefined });
    }
    this.#actions.add(action);
    if (action.entries.size === 0) this.#succeed(action);
    else this.#dispatch();
  }

  /** The result of an earlier run, for a task that nothing in this one does. */
  #find({ key }: Task): TaskResult | undefined {
    const entry = this.#entries.get(key);
    if (entry !== undefined && entry.state !== "released") return undefined;
    return this.#store.finished(key, entry !== undefined || this.#attempts.has(key));
  }

  #enter(action: Action, task: Task, result: TaskResult | undefined): void {
    let entry = this.#entries.get(task.key);
    if (entry === undefined || entry.state === "released") {
      entry = this.#renew(task, entry);
      if (result !== undefined) {
        this.#finish(entry, result, { type: "reused", task, attempt: -1, executor: undefined });
        return;
      }
      this.#await(entry);
    }
    if (entry.state === "done") return;
    action.entries.add(entry);
    entry.actions.add(action);
  }

  #renew(task: Task, old: Entry | undefined): Entry {
    const entry = new Entry(task, old?.attempts ?? this.#attempts.get(task.key) ?? 0);
    this.#attempts.delete(task.key);
    this.#entries.set(task.key, entry);
    this.#unfinished++;
    return entry;
  }

  /** Counts the inputs that are not there. */
  #await(entry: Entry): void {
    entry.inputs = this.#inputsOf(entry.task);
    for (const input of entry.inputs) {
      input.readers++;
      if (input.state === "done") continue;
      input.users.push(entry);
      entry.waits++;
    }
    if (entry.waits === 0) this.#makeReady(entry);
  }

  #inputsOf({ inputs }: Task): Entry[] {
    const keys = new Set<string>();
    for (const refs of inputs)
      for (const ref of refs) for (const key of tasksOf(ref)) keys.add(key);
    return [...keys].map((key) => this.#entries.get(key) as Entry);
  }

  #succeed(action: Action): void {
    this.#actions.delete(action);
    const { roots } = action.graph;
    action.resolve(roots.map((refs) => concatData(refs.map((ref) => this.#data(ref)))));
  }

  /** Ends an action, and what nobody else wants of it. */
  #end(action: Action, error: unknown): void {
    if (action.over) return;
    this.#actions.delete(action);
    action.reject(error);
    for (const entry of action.entries) {
      entry.actions.delete(action);
      // One that is done may end its action by taking too much space.
      if (entry.actions.size === 0 && entry.state !== "done") this.#drop(entry);
    }
    action.entries.clear();
    this.#dispatch();
  }

  #drop(entry: Entry): void {
    entry.state = "dropped";
    this.#unfinished--;
    this.#entries.delete(entry.task.key);
    if (entry.attempts > 0) this.#attempts.set(entry.task.key, entry.attempts);
    for (const attempt of entry.live) this.#stopAttempt(attempt);
    this.#unread(entry);
  }

  /** A task is over: it reads its inputs no more. */
  #unread(entry: Entry): void {
    const { inputs } = entry;
    entry.inputs = [];
    for (const input of inputs) this.#leaveUnread(input);
  }

  #leaveUnread(input: Entry): void {
    input.readers--;
    this.#outputs.unread(input);
  }

  #fail(entry: Entry, error: Error): void {
    for (const action of [...entry.actions]) this.#end(action, error);
  }

  #makeReady(entry: Entry): void {
    entry.state = "ready";
    const urgent = this.#policy.prioritizeRetry && entry.failures + entry.losses > 0;
    this.#ready.push(entry, urgent);
  }

  #dispatch(): void {
    let open: Seat[] | undefined;
    for (let lane = this.#ready.next(); lane !== undefined; lane = this.#ready.next()) {
      open ??= [...this.#seats].filter((seat) => seat.open);
      const seat = chooseSeat(lane, open, this.#seats);
      if (seat === undefined) lane.blocked = true;
      else {
        this.#ready.served(lane);
        this.#start(lane.first as Entry, seat, "started");
        if (!seat.open) open.splice(open.indexOf(seat), 1);
      }
    }
  }

  /** An executor has more room than before. */
  #roomier(seat: Seat): void {
    if (!seat.open) return;
    this.#ready.unblock((lane) => chooseSeat(lane, [seat], this.#seats) !== undefined);
  }

  #start(entry: Entry, seat: Seat, type: "started" | "speculated"): void {
    const { task } = entry;
    entry.state = "running";
    const asked = memoryOn(seat, demandOf(entry), this.#seats);
    const last = this.#unfinished <= 2 * this.#seats.size && !this.#ready.waiting;
    const factor = last && type === "started" ? this.#policy.boost : 1;
    const { cpus, memoryBytes } = boosted(task, seat, asked, factor, this.#times.usual(task.node));
    const attempt: Attempt = {
      entry,
      number: entry.attempts++,
      seat,
      startedMs: this.#nowMs,
      cpus,
      memoryBytes,
      gpus: task.resources.gpus ? (seat.devicesFor(task.resources.gpus) ?? []) : [],
      over: false,
      stopMs: undefined,
    };
    entry.live.add(attempt);
    seat.take(attempt);
    const inputs = task.inputs.map((refs) => concatData(refs.map((ref) => this.#data(ref))));
    seat.handle.send({
      run: { task, inputs },
      attempt: attempt.number,
      memoryBytes,
      ...(cpus !== task.resources.cpus && { cpus }),
      ...(attempt.gpus.length > 0 && { gpus: attempt.gpus }),
    });
    this.#news.add({ type, task, attempt: attempt.number, executor: seat.handle.id });
  }

  #data(ref: InputRef): DataSet {
    return dataOf(ref, (key) => this.#entries.get(key)?.result?.outputs ?? []);
  }

  #speculate(): void {
    if (this.#policy.speculation !== "aggressive" && this.#ready.waiting) return;
    for (const entry of lateEntries(this.#seats, this.#times, this.#policy, this.#nowMs)) {
      const [first] = entry.live;
      const others = [...this.#seats].filter((seat) => seat !== first?.seat && seat.open);
      const seat = chooseSeat(demandOf(entry), others, this.#seats);
      if (seat === undefined) continue;
      entry.copies++;
      this.#start(entry, seat, "speculated");
    }
  }

  #take(seat: Seat, message: FromExecutor): void {
    if (seat.state === "lost") return;
    const before = seat.heard(this.#nowMs, "alive" in message ? message.load : undefined);
    if (before !== seat.state) this.#changed(seat, before);
    if ("done" in message) this.#done(seat, message.done, message.attempt);
    else if ("failed" in message) {
      const attempt = seat.find(message.failed, message.attempt);
      if (attempt === undefined) return;
      this.#leave(attempt);
      const error = deserializeError(message.error, [TaskError, DiskError]);
      if (!attempt.over) this.#failed(attempt, error);
    } else if ("leaving" in message) this.#stopSeat(seat, message.leaving);
    this.#dispatch();
  }

  #changed(seat: Seat, before: Seat["state"]): void {
    const type =
      before === "starting" ? "ready" : seat.state === "low" ? "low" : ("recovered" as const);
    const { id, capacity } = seat.handle;
    this.#executorNews.add({ type, executor: id, capacity });
    this.#roomier(seat);
  }

  #done(seat: Seat, result: TaskResult, number: number): void {
    const attempt = seat.find(result.key, number);
    if (attempt === undefined) return;
    this.#leave(attempt);
    const { task } = attempt.entry;
    const executor = seat.handle.id;
    const entry = this.#entries.get(result.key);
    if (entry === undefined || entry.state === "done" || entry.state === "released") return;
    if (!attempt.over) {
      this.#over(attempt);
      this.#times.add(task.node, this.#nowMs - attempt.startedMs);
      this.#finish(entry, result, { type: "finished", task, attempt: number, executor, result });
      return;
    }
    // It was given up, and yet its result may be in place: then nothing needs to run for it.
    const whole = this.#store.finished(result.key, true);
    if (whole === undefined) return;
    this.#finish(entry, whole, { type: "reused", task, attempt: -1, executor });
  }

  /** Frees what an attempt held. */
  #leave(attempt: Attempt): void {
    const { seat } = attempt;
    seat.leave(attempt);
    if (seat.state === "stopping" && seat.load === 0) void seat.handle.close();
    else this.#roomier(seat);
  }

  #over(attempt: Attempt): void {
    attempt.over = true;
    attempt.entry.live.delete(attempt);
  }

  /** Tells an executor to end an attempt, and listeners that it is over. */
  #stopAttempt(attempt: Attempt, tell = true): void {
    const { entry, number, seat } = attempt;
    this.#over(attempt);
    attempt.stopMs = this.#nowMs;
    const executor = seat.handle.id;
    if (tell) this.#news.add({ type: "stopped", task: entry.task, attempt: number, executor });
    seat.handle.send({ stop: entry.task.key, attempt: number });
  }

  #finish(entry: Entry, result: TaskResult, event: TaskEvent): void {
    entry.state = "done";
    entry.result = result;
    this.#unfinished--;
    this.#news.add({ ...event, result });
    for (const other of entry.live) this.#stopAttempt(other);
    const tooMuch = this.#outputs.add(entry);
    const { users } = entry;
    entry.users = [];
    for (const user of users) {
      user.waits--;
      if (user.waits === 0 && user.state === "waiting") this.#makeReady(user);
    }
    this.#unread(entry);
    if (tooMuch !== undefined) this.#fail(entry, tooMuch);
    for (const action of entry.actions) {
      action.entries.delete(entry);
      if (action.entries.size === 0) this.#succeed(action);
    }
    entry.actions.clear();
  }

  #failed(attempt: Attempt, error: Error, crashed = false): void {
    const { entry, number, seat } = attempt;
    const { task } = entry;
    this.#over(attempt);
    const ceilingBytes = ceilingFor(task.resources, [...this.#seats, seat]);
    const verdict = judge(attempt, error, this.#policy, ceilingBytes, crashed);
    const event = { task, attempt: number, executor: seat.handle.id, error };
    if (verdict.kind === "final" && entry.live.size === 0) {
      const last = finalError(error, task.node, number + 1, verdict.note);
      this.#news.add({ type: "failed", ...event, error: last });
      this.#fail(entry, last);
      return;
    }
    this.#news.add({ type: verdict.kind === "stopped" ? "stopped" : "retried", ...event });
    // A copy that failed so is the last one; the attempt beside it decides.
    if (verdict.kind === "final") entry.copies = Number.POSITIVE_INFINITY;
    if (verdict.kind === "lost") entry.losses++;
    else if (verdict.kind === "relax") {
      entry.memoryScale = Math.max(entry.memoryScale, verdict.memoryScale);
    } else if (verdict.kind === "again") this.#count(attempt, error);
    // Another attempt goes on, or its executor was the last that could run it.
    if (entry.live.size > 0 || entry.state !== "running") return;
    // It may have put its result in place before it could say so.
    const result = verdict.kind === "lost" ? this.#store.finished(task.key, true) : undefined;
    if (result === undefined) this.#makeReady(entry);
    else {
      this.#finish(entry, result, { type: "reused", task, attempt: -1, executor: undefined });
    }
  }

  /** A failure that counts: it is tried elsewhere, and its executor may be at fault. */
  #count({ entry, seat }: Attempt, error: Error): void {
    const { id } = seat.handle;
    entry.failures++;
    entry.avoid = [...entry.avoid.filter((other) => other !== id), id].slice(-avoided);
    const reason = reasonOf(error);
    if (reason === "disk") this.#outputs.makeSpace(0);
    const byMachine = reason === "crash" || reason === "disk" || reason === "internal";
    if (byMachine && this.#policy.stopExecutorOnFailure) this.#stopSeat(seat, error.message);
  }

  /** Nothing new goes to it; it ends when it is empty, and another one may come for it. */
  #stopSeat(seat: Seat, reason: string): void {
    if (seat.state === "stopping" || seat.state === "lost") return;
    seat.state = "stopping";
    this.#executorNews.add({ type: "stopping", executor: seat.handle.id, reason });
    this.#expectReplacement(seat, reason);
    if (seat.load === 0) void seat.handle.close();
    this.#recheck(`${seat.handle.id} is stopping (${reason})`);
  }

  #lost(seat: Seat, reason: string): void {
    if (seat.state === "lost") return;
    const before = seat.state;
    seat.state = "lost";
    this.#seats.delete(seat);
    const { id } = seat.handle;
    this.#executorNews.add({ type: "lost", executor: id, reason });
    if (before !== "stopping") this.#expectReplacement(seat, reason);
    this.#store.abandoned(id);
    const crashed = !reason.startsWith("silent");
    for (const attempt of [...seat.running]) {
      seat.leave(attempt);
      if (attempt.over) continue;
      const { task } = attempt.entry;
      const message = `executor ${id} was lost (${reason})`;
      const error = new TaskError(task.node, attempt.number + 1, "executor-lost", message);
      this.#failed(attempt, error, crashed);
    }
    this.#recheck(`${id} was lost (${reason})`);
    this.#dispatch();
  }

  #expectReplacement(seat: Seat, reason: string): void {
    if (this.#options.onLost?.(seat.handle, reason)) this.#coming.push(seat.handle.capacity);
  }

  /** Ends what nobody can run any more, now that an executor is gone. */
  #recheck(why: string): void {
    this.#ready.unblock(() => true);
    const seats = [...this.#seats];
    const nobody = seats.length === 0 && this.#coming.length === 0;
    for (const action of [...this.#actions]) {
      const problem = nobody
        ? new NoExecutorError(`no executor is left: ${why}`)
        : infeasible(
            [...action.entries].map(({ task }) => task),
            seats,
            this.#coming,
            `; ${why}`,
          );
      if (problem !== undefined) this.#end(action, problem);
    }
  }

  /** Ends actions when no executor has come up for too long. */
  #expectSomebody(): void {
    const seats = [...this.#seats];
    if (this.#actions.size === 0 || seats.some(({ state }) => state !== "starting")) {
      this.#aloneMs = undefined;
      return;
    }
    this.#aloneMs ??= this.#nowMs;
    if (this.#nowMs - this.#aloneMs < this.#policy.noExecutorMs) return;
    const error = nobodyCame(seats, this.#policy.noExecutorMs);
    for (const action of [...this.#actions]) this.#end(action, error);
    this.#aloneMs = undefined;
  }

  /** Does something that comes from outside, then tells listeners of all of it. */
  #react<T>(act: () => T): T {
    try {
      return act();
    } finally {
      this.#executorNews.publish();
      this.#news.publish();
    }
  }
}
