// Starts the ranks of one node as processes and looks after them: the first that fails ends the
// others, here and on the other nodes, whose launchers meet in the same store as the ranks.

import { randomBytes } from "node:crypto";
import { mkdtempSync, rmSync } from "node:fs";
import { constants, hostname, tmpdir } from "node:os";
import { join } from "node:path";
import { InfraError, InputError } from "@open-infra/errors";
import type { LineSink } from "./launch-output.ts";
import { type RankExit, RankProcess } from "./launch-process.ts";
import { StoreLostError } from "./tcp-errors.ts";
import { isLoopback } from "./tcp-guard.ts";
import { TcpStore } from "./tcp-store.ts";
import { TcpStoreServer } from "./tcp-store-server.ts";

/** What to start, and where. */
export interface LaunchOptions {
  /** A script that Node runs (.ts, .js, …), or any other program; then its arguments. */
  readonly command: readonly string[];
  readonly ranksPerNode: number;
  /** @default 1 */
  readonly nodes?: number;
  /** @default 0 */
  readonly nodeRank?: number;
  /** Address of node 0. @default 127.0.0.1, for one node */
  readonly masterHost?: string;
  /** @default a free one for one node, else 29500 */
  readonly masterPort?: number;
  /** @default OPEN_INFRA_SECRET, or one made up for one node */
  readonly secret?: string;
  readonly transport?: "auto" | "shm" | "ucx" | "tcp";
  /** How long ranks and launchers wait for each other. @default 100 s */
  readonly timeoutMs?: number;
  /** Put the rank before each line. @default false: output as it comes */
  readonly prefix?: boolean;
  /** Where the ranks' output goes. @default the launcher's own */
  readonly stdout?: LineSink;
  readonly stderr?: LineSink;
  /** From SIGTERM to SIGKILL. @default 5000 */
  readonly graceMs?: number;
  readonly env?: Readonly<Partial<Record<string, string>>>;
  /** Told of warnings: strangers at the store. */
  readonly onWarning?: (message: string) => void;
  /** Signals to hand on; for tests. @default those of this process */
  readonly signals?: Pick<NodeJS.Process, "on" | "off">;
}

/** Why a launch failed: the first rank that did, on whatever node, or a launcher. */
export interface LaunchFailure {
  readonly node: number;
  readonly host: string;
  /** −1: no rank, a launcher or a signal. */
  readonly rank: number;
  readonly pid: number;
  readonly exitCode: number | null;
  readonly signal: string | null;
  /** One sentence. */
  readonly message: string;
  /** The class and code of what the rank threw. */
  readonly errorName?: string;
  readonly errorCode?: string;
}

export interface LaunchResult {
  /** For the shell: 0, the failing rank's, or 128 + its signal. */
  readonly exitStatus: number;
  readonly worldSize: number;
  readonly seconds: number;
  readonly failure?: LaunchFailure;
  /** This node's. */
  readonly ranks: readonly RankExit[];
}

const forwarded = ["SIGINT", "SIGTERM", "SIGHUP"] as const;
const failedKey = "launch/failed";
const longMs = 1e9;

/** Errors that a rank has because another one failed first. */
const consequences: ReadonlySet<string> = new Set([
  ...["rank-dead", "rank-timeout", "group-aborted", "store-lost", "store-failed"],
]);
/** How long after a consequence its cause may still be told. */
const causeMs = 1000;

/**
 * Runs the ranks of this node to their end.
 *
 * @throws InputError, PortInUseError, UnreachableError, SecretRefusedError before any rank starts
 */
export async function launchRanks(options: LaunchOptions): Promise<LaunchResult> {
  const launch = new Launch(options);
  try {
    await launch.meet();
    return await launch.run();
  } finally {
    launch[Symbol.dispose]();
  }
}

class Launch implements Disposable {
  readonly #options: LaunchOptions;
  readonly #nodes: number;
  readonly #node: number;
  readonly #timeoutMs: number;
  readonly #host: string;
  readonly #secret: string;
  readonly #start = performance.now();
  readonly #folder = mkdtempSync(join(tmpdir(), "open-infra-launch-"));
  readonly #processes: RankProcess[] = [];
  #server: TcpStoreServer | undefined;
  #store: TcpStore | undefined;
  #failure: LaunchFailure | undefined;
  /** A failure that another rank's has probably caused. */
  #suspect: { readonly failure: LaunchFailure; readonly decided: Promise<void> } | undefined;
  #killer: NodeJS.Timeout | undefined;

  constructor(options: LaunchOptions) {
    const { nodes = 1, nodeRank = 0, timeoutMs = 100_000, masterHost } = options;
    this.#options = options;
    this.#nodes = nodes;
    this.#node = nodeRank;
    this.#timeoutMs = timeoutMs;
    check(options, nodes, nodeRank);
    this.#host = masterHost ?? "127.0.0.1";
    const given = options.secret ?? (options.env ?? process.env).OPEN_INFRA_SECRET ?? "";
    if (given === "" && nodes > 1) {
      throw new InputError(
        "OPEN_INFRA_SECRET",
        "not set",
        "the same secret on all nodes: export OPEN_INFRA_SECRET=$(openssl rand -hex 32)",
      );
    }
    this.#secret = given === "" ? randomBytes(32).toString("hex") : given;
  }

  /** Node 0 opens the store; all launchers say what they bring, and must agree. */
  async meet(): Promise<void> {
    const { masterPort = this.#nodes === 1 ? 0 : 29_500, onWarning } = this.#options;
    let port = masterPort;
    if (this.#node === 0) {
      this.#server = await TcpStoreServer.listen({
        host: isLoopback(this.#host) ? this.#host : "",
        ...{ port, secret: this.#secret },
        ...(onWarning !== undefined && { onStranger: onWarning }),
      });
      port = this.#server.port;
    }
    const { ranksPerNode } = this.#options;
    const at = { host: this.#host, port, secret: this.#secret, timeoutMs: this.#timeoutMs };
    const store = await TcpStore.connect(at);
    this.#store = store;
    const gone = `the launcher of node ${this.#node} (${hostname()}) is gone`;
    await store.setWill(failedKey, JSON.stringify(this.#failureOfNode(gone)));
    const own = JSON.stringify({ nodes: this.#nodes, ranksPerNode });
    if ((await store.add(`launch/taken/${this.#node}`, 1)) > 1) {
      // The place is another's; that one must not fail because of us.
      await store.setWill("launch/unused", "");
      throw new InputError("nodeRank", `${this.#node}`, "one that no other launcher has taken");
    }
    await store.set(`launch/node/${this.#node}`, own);
    const first = await store.get("launch/node/0");
    if (first !== own) {
      const text = `node ${this.#node} was launched with ${own}, node 0 with ${first}`;
      await store.set(failedKey, JSON.stringify(this.#failureOfNode(text)));
      throw new InputError("nodes, ranksPerNode", own, `what node 0 was launched with: ${first}`);
    }
  }

  async run(): Promise<LaunchResult> {
    const release = this.#forwardSignals();
    try {
      this.#watchOthers();
      const { ranksPerNode } = this.#options;
      for (let local = 0; local < ranksPerNode && this.#failure === undefined; local++) {
        this.#processes.push(this.#spawn(local));
      }
      const ranks = await Promise.all(this.#processes.map((one) => this.#untilEnd(one)));
      if (this.#suspect !== undefined && this.#nodes > 1) await this.#suspect.decided;
      if (this.#suspect !== undefined) this.#fail(this.#suspect.failure);
      if (this.#failure === undefined) await this.#othersDone();
      return this.#result(ranks);
    } finally {
      release();
      clearTimeout(this.#killer);
    }
  }

  [Symbol.dispose](): void {
    for (const one of this.#processes) one.kill("SIGKILL");
    this.#store?.close();
    this.#server?.[Symbol.dispose]();
    rmSync(this.#folder, { recursive: true, force: true });
  }

  #spawn(localRank: number): RankProcess {
    const { ranksPerNode, command, prefix, stdout, stderr, transport } = this.#options;
    const rank = this.#node * ranksPerNode + localRank;
    const errorFile = join(this.#folder, `${rank}.json`);
    const env: Record<string, string | undefined> = {
      ...(this.#options.env ?? process.env),
      RANK: `${rank}`,
      WORLD_SIZE: `${this.#nodes * ranksPerNode}`,
      LOCAL_RANK: `${localRank}`,
      LOCAL_WORLD_SIZE: `${ranksPerNode}`,
      GROUP_RANK: `${this.#node}`,
      MASTER_ADDR: this.#host,
      MASTER_PORT: `${this.#store?.port}`,
      OPEN_INFRA_STORE: "launcher",
      OPEN_INFRA_SECRET: this.#secret,
      OPEN_INFRA_TIMEOUT_MS: `${this.#timeoutMs}`,
      OPEN_INFRA_LAUNCHER_PID: `${process.pid}`,
      OPEN_INFRA_ERROR_FILE: errorFile,
      ...(transport !== undefined && { OPEN_INFRA_TRANSPORT: transport }),
    };
    return new RankProcess({
      ...{ rank, localRank, env, errorFile, command: programOf(command) },
      ...(prefix === true && { prefix: `[${rank}] ` }),
      ...(stdout !== undefined && { stdout }),
      ...(stderr !== undefined && { stderr }),
    });
  }

  async #untilEnd(one: RankProcess): Promise<RankExit> {
    const exit = await one.ended.catch((error: Error) => {
      const none = { localRank: 0, pid: 0, exitCode: 127, signal: null, seconds: 0 };
      const { name, message } = error;
      const wire = { name, code: "spawn", message, fields: {}, stack: "" };
      return { rank: one.rank, ...none, error: wire } as RankExit;
    });
    if (exit.exitCode !== 0) this.#blame(this.#failureOf(exit));
    await one.drained(1000);
    // What the rank has started itself must not outlive it.
    one.kill("SIGKILL");
    return exit;
  }

  /**
   * A rank that only lost its peer may be seen to end before that peer is, so it is taken for the
   * first to fail only if nobody with a cause of its own turns up.
   */
  #blame(failure: LaunchFailure): void {
    if (!consequences.has(failure.errorCode ?? "")) {
      this.#fail(failure);
      return;
    }
    if (this.#suspect !== undefined) return;
    const { promise, resolve } = Promise.withResolvers<void>();
    setTimeout(() => {
      this.#fail(failure);
      resolve();
    }, causeMs);
    this.#suspect = { failure, decided: promise };
  }

  /** The first failure counts: the others of this node are ended, the other nodes told. */
  #fail(failure: LaunchFailure): void {
    if (this.#failure !== undefined) return;
    this.#failure = failure;
    this.#store?.set(failedKey, JSON.stringify(failure)).catch(() => {});
    this.#end("SIGTERM");
  }

  #end(signal: NodeJS.Signals): void {
    for (const one of this.#processes) one.kill(signal);
    const { graceMs = 5000 } = this.#options;
    this.#killer ??= setTimeout(() => {
      for (const one of this.#processes) one.kill("SIGKILL");
    }, graceMs);
  }

  #watchOthers(): void {
    const store = this.#store as TcpStore;
    store.get(failedKey, { timeoutMs: longMs }).then(
      (text) => this.#fail(JSON.parse(text) as LaunchFailure),
      (error: unknown) => {
        if (error instanceof StoreLostError) this.#fail(this.#failureOfNode(error.message));
      },
    );
  }

  /** Node 0 holds the store until all nodes are done; the others wait for nobody. */
  async #othersDone(): Promise<void> {
    const store = this.#store as TcpStore;
    await store.set(`launch/done/${this.#node}`, "1").catch(() => {});
    if (this.#node > 0) return;
    const all = Array.from({ length: this.#nodes }, (_, node) =>
      store.get(`launch/done/${node}`, { timeoutMs: longMs }),
    );
    const failed = store.get(failedKey, { timeoutMs: longMs });
    await Promise.race([Promise.all(all), failed]).catch(() => {});
  }

  #forwardSignals(): () => void {
    const source = this.#options.signals ?? process;
    let received = 0;
    const handlers = forwarded.map((signal) => {
      const handler = (): void => {
        received++;
        const text = `the launcher of node ${this.#node} got ${signal}`;
        this.#failure ??= { ...this.#failureOfNode(text), signal };
        this.#store?.set(failedKey, JSON.stringify(this.#failure)).catch(() => {});
        this.#end(received > 1 ? "SIGKILL" : signal);
      };
      source.on(signal, handler);
      return { signal, handler };
    });
    return () => {
      for (const { signal, handler } of handlers) source.off(signal, handler);
    };
  }

  #failureOf({ rank, pid, exitCode, signal, error }: RankExit): LaunchFailure {
    const how = signal === null ? `with exit status ${exitCode}` : `by ${signal}`;
    const what = error === undefined ? "" : `: ${error.name}: ${error.message}`;
    return {
      ...{ node: this.#node, host: hostname(), rank, pid, exitCode, signal },
      message: `rank ${rank} (${hostname()}, process ${pid}) ended ${how}${what}`,
      ...(error !== undefined && { errorName: error.name, errorCode: error.code }),
    };
  }

  #failureOfNode(message: string): LaunchFailure {
    const none = { rank: -1, pid: process.pid, exitCode: 1, signal: null };
    return { node: this.#node, host: hostname(), ...none, message };
  }

  #result(ranks: readonly RankExit[]): LaunchResult {
    return {
      exitStatus: this.#failure === undefined ? 0 : statusOf(this.#failure),
      worldSize: this.#nodes * this.#options.ranksPerNode,
      seconds: (performance.now() - this.#start) / 1000,
      ...(this.#failure !== undefined && { failure: this.#failure }),
      ranks,
    };
  }
}

function statusOf({ exitCode, signal }: LaunchFailure): number {
  if (signal !== null) return 128 + (constants.signals[signal as NodeJS.Signals] ?? 0);
  return exitCode === null || exitCode === 0 ? 1 : exitCode;
}

/** Scripts run under this Node, with its own flags; anything else is a program. */
function programOf(command: readonly string[]): readonly string[] {
  const [program = "", ...args] = command;
  if (!/\.[cm]?[jt]s$/.test(program)) return command;
  return [process.execPath, ...process.execArgv, program, ...args];
}

function check(
  { command, ranksPerNode, masterHost }: LaunchOptions,
  nodes: number,
  node: number,
): void {
  const expect = (what: string, value: number, low: number, high: number): void => {
    if (Number.isInteger(value) && value >= low && value <= high) return;
    throw new InputError(what, `${value}`, `an integer from ${low} to ${high}`);
  };
  expect("nodes", nodes, 1, 65_536);
  expect("nodeRank", node, 0, nodes - 1);
  expect("ranksPerNode", ranksPerNode, 1, 4096);
  if (command.length === 0) throw new InputError("command", "empty", "a script or a program");
  if (nodes > 1 && masterHost === undefined) {
    throw new InfraError("usage", "several nodes need the address of node 0: --master-addr");
  }
}
