// The executors of a session: how they are started, by which channel they are reached, who joins,
// and who takes the place of a lost one. What they run is the scheduler's.

import { mkdirSync } from "node:fs";
import { join } from "node:path";
import { InputError } from "@open-infra/errors";
import type { Channel } from "../channel/channel.ts";
import { IpcParent } from "../channel/ipc-parent.ts";
import {
  type ChannelChoice,
  freshSpace,
  type JobCard,
  openChannel,
  removeCard,
  writeCard,
} from "../channel/job-card.ts";
import { NoExecutorError } from "../errors.ts";
import type { Launched, Launcher } from "../launch/launcher.ts";
import type { StorageOptions } from "../task/disk.ts";
import { type ExecutorHandle, RemoteExecutor } from "./handle.ts";
import { ExecutorHub } from "./hub.ts";
import { startLocalProcess } from "./local.ts";
import type { Capacity } from "./protocol.ts";
import { executorProgram } from "./supervise.ts";

/** What a fleet is made of. */
export interface FleetOptions {
  readonly jobRoot: string;
  readonly jobId: string;
  readonly count: number;
  /** Of a local executor. */
  readonly capacity: Capacity;
  /** What the user said of it, for executors elsewhere, which find out the rest. */
  readonly saidCapacity: Partial<Capacity>;
  readonly storage: StorageOptions;
  /** The engine's version. */
  readonly engine: string;
  /** @default local processes */
  readonly launcher: Launcher | undefined;
  readonly channel: ChannelChoice;
  /** Executors started anew for lost ones, in all. */
  readonly maxRestarts: number;
  /** How long the first executor of a launcher may take. */
  readonly startTimeoutMs: number;
  /** How long the channel may be away before the session gives up. */
  readonly channelOutageMs: number;
  /** Given each executor as it is started, or as it joins. */
  readonly onStart: (handle: ExecutorHandle) => void;
  /** So many will come, of which nothing is known yet. */
  readonly onExpect: (count: number) => void;
  /** Those that have not come yet will not. */
  readonly onNoMore: () => void;
  /** No executor comes any more, and none is there. */
  readonly onNone: (error: Error) => void;
}

const restartDelayMs = 200;
const watchMs = 1_000;

/** See the head of this file. */
export class Fleet {
  readonly #options: FleetOptions;
  readonly #executors = new Set<RemoteExecutor>();
  readonly #pipes: IpcParent | undefined;
  readonly #refused = new Map<string, string>();
  #channel: Channel | undefined;
  #hub: ExecutorHub | undefined;
  #launched: Launched | undefined;
  #watch: NodeJS.Timeout | undefined;
  #outageMs = 0;
  #waitedMs = 0;
  #words = "";
  #ended: string | undefined;
  #joined = 0;
  #restarts = 0;
  #open = true;

  /** @throws InputError for executors elsewhere over pipes */
  constructor(options: FleetOptions) {
    this.#options = options;
    const { launcher, channel } = options;
    if (channel.kind === "ipc" && launcher !== undefined) {
      throw new InputError("channel", "ipc", `files or nats with the launcher ${launcher.name}`);
    }
    this.#pipes = channel.kind === "ipc" ? new IpcParent() : undefined;
  }

  /** @throws ChannelError, LaunchError */
  async start(): Promise<void> {
    const { count, launcher, engine } = this.#options;
    const channel = this.#pipes ?? (await this.#openChannel());
    this.#channel = channel;
    this.#hub = new ExecutorHub(channel, engine, {
      onJoin: (handle) => this.#join(handle),
      onRefused: (id, why) => this.#refused.set(id, why),
    });
    await this.#hub.start();
    if (launcher === undefined) {
      for (let i = 0; i < count; i++) this.#startLocal(`local-${i}`);
    } else await this.#launch(launcher);
    if (this.#pipes !== undefined) return;
    // Keeps the driver alive, as child processes do: executors elsewhere would outlive it.
    this.#watch = setInterval(() => this.#look(), watchMs);
  }

  /** Cores that the plan may count on; the same whoever has joined, as plans depend on it. */
  get cpus(): number {
    return this.#options.count * this.#options.capacity.cpus;
  }

  /** What the launcher said last, for the error that nobody came. */
  get words(): string {
    const refused = [...this.#refused].map(([id, why]) => `${id} was refused: ${why}`);
    return [this.#words, ...refused].filter((line) => line !== "").join("\n");
  }

  /** Starts an executor in the place of a lost one, if any may still be. */
  replace({ id }: ExecutorHandle): boolean {
    if (!this.#open) return false;
    const { launcher, maxRestarts, count } = this.#options;
    const most = launcher === undefined ? maxRestarts : maxRestarts * count;
    if (this.#restarts >= most || this.#ended !== undefined) return false;
    this.#restarts++;
    // Those elsewhere have supervisors of their own, and a cluster that queues them again.
    if (launcher !== undefined) return true;
    const next = `${id.replace(/\+\d+$/, "")}+${this.#restarts}`;
    // Not at once: whatever ended the other one may still be going on.
    setTimeout(() => this.#open && this.#startLocal(next), restartDelayMs);
    return true;
  }

  async close(): Promise<void> {
    if (!this.#open) return;
    this.#open = false;
    clearInterval(this.#watch);
    await Promise.all([...this.#executors].map((executor) => executor.close()));
    await this.#launched?.stop();
    await this.#hub?.close();
    await this.#channel?.close();
    if (this.#pipes === undefined) removeCard(this.#options.jobRoot);
  }

  async #openChannel(): Promise<Channel> {
    const { jobRoot, jobId, channel, saidCapacity, storage, engine } = this.#options;
    const card: JobCard = {
      ...freshSpace(jobId),
      channel,
      capacity: saidCapacity,
      storage,
      engine,
      driverSilentMs: 60_000,
    };
    writeCard(jobRoot, card);
    return await openChannel(jobRoot, card, true);
  }

  async #launch(launcher: Launcher): Promise<void> {
    const { jobRoot, jobId, count, saidCapacity } = this.#options;
    const { file, flags } = executorProgram();
    const { cpus, memoryBytes } = saidCapacity;
    const folder = join(jobRoot, "log");
    mkdirSync(folder, { recursive: true });
    this.#options.onExpect(count);
    this.#launched = await launcher.launch({
      command: [process.execPath, ...flags, file, JSON.stringify({ jobRoot })],
      count,
      name: `smallpond-${jobId}`,
      folder,
      ...(cpus !== undefined && { cpus }),
      ...(memoryBytes !== undefined && { memoryBytes }),
    });
    void this.#launched.ended.then((reason) => {
      this.#ended = reason;
      this.#words = reason;
    });
  }

  #join(handle: RemoteExecutor): void {
    this.#joined++;
    this.#add(handle);
  }

  #startLocal(id: string): void {
    const { jobRoot, capacity, storage } = this.#options;
    const process = startLocalProcess({ id, jobRoot, capacity, storage }, this.#pipes);
    const identity = { id, capacity, pid: process.pid, host: "" };
    const handle = new RemoteExecutor(this.#channel as Channel, identity, process);
    this.#hub?.add(handle);
    this.#add(handle);
  }

  #add(handle: RemoteExecutor): void {
    this.#executors.add(handle);
    handle.onExit(() => this.#executors.delete(handle));
    this.#options.onStart(handle);
  }

  #look(): void {
    const trouble = this.#channel?.trouble;
    this.#outageMs = trouble === undefined ? 0 : this.#outageMs + watchMs;
    if (trouble !== undefined && this.#outageMs > this.#options.channelOutageMs) {
      const message = `the channel was away for ${this.#outageMs} ms: ${trouble}`;
      this.#giveUp(message);
      return;
    }
    const { launcher, startTimeoutMs, onNoMore } = this.#options;
    if (launcher === undefined) return;
    this.#waitedMs += watchMs;
    if (this.#waitedMs > startTimeoutMs && this.#waitedMs - watchMs <= startTimeoutMs) {
      if (this.#joined > 0) onNoMore();
    }
    if (this.#executors.size > 0) return;
    if (this.#ended !== undefined) {
      const none = this.#joined === 0 ? "no executor came" : "no executor is left";
      this.#giveUp(`${none}; ${launcher.name}: ${this.#ended}`);
      return;
    }
    void this.#ask();
    if (this.#joined === 0 && this.#waitedMs > startTimeoutMs) {
      const patience = `no executor came within ${startTimeoutMs} ms`;
      this.#giveUp(`${patience}; ${launcher.name}: ${this.words}`);
    }
  }

  #giveUp(message: string): void {
    clearInterval(this.#watch);
    this.#options.onNone(new NoExecutorError(message));
  }

  async #ask(): Promise<void> {
    const words = await this.#launched?.describe().catch(String);
    if (this.#ended === undefined) this.#words = words ?? "";
  }
}
