// A peer as the bench sees it: another process, so that its threads, its environment and its
// crashes are its own.

import { type ChildProcess, fork } from "node:child_process";
import { fileURLToPath } from "node:url";
import type { Answer, Burst, PeerAdapter, Request } from "./peer.ts";
import type { Problem } from "./problem.ts";

/** A peer's process. Where the library is missing it is open all the same, and says so. */
export class PeerProcess implements Disposable {
  readonly adapter: PeerAdapter;
  /** Name and version, or what is missing and how to get it. */
  readonly label: string;
  readonly installed: boolean;
  readonly #child: ChildProcess;

  private constructor(adapter: PeerAdapter, child: ChildProcess, opened: Answer) {
    this.adapter = adapter;
    this.#child = child;
    this.installed = opened.kind === "opened";
    this.label =
      opened.kind === "opened"
        ? `${adapter.name} ${opened.version}`
        : `no ${adapter.name}: ${adapter.install}`;
  }

  /** Starts the process with as many threads. */
  static async start(adapter: PeerAdapter, threads: number): Promise<PeerProcess> {
    const { OPENBLAS_CORETYPE: _, ...env } = process.env;
    const child = fork(
      fileURLToPath(new URL("worker.ts", import.meta.url)),
      [adapter.name, `${threads}`],
      {
        execArgv: ["--conditions=@open-infra/source"],
        env: { ...env, OMP_NUM_THREADS: `${threads}`, OPENBLAS_NUM_THREADS: `${threads}` },
        stdio: ["ignore", "ignore", "inherit", "ipc"],
      },
    );
    return new PeerProcess(adapter, child, await answerOf(child));
  }

  /** Puts a problem in place; resolves to the values to compare, or to why it cannot. */
  async prepare(problem: Problem): Promise<readonly number[] | string> {
    const answer = await this.#ask({ kind: "prepare", problem });
    return answer.kind === "prepared" ? answer.values : reasonOf(answer);
  }

  /** @throws if the library fails in the middle. */
  async burst(milliseconds: number): Promise<Burst> {
    const answer = await this.#ask({ kind: "burst", milliseconds });
    if (answer.kind === "measured") return answer.burst;
    throw new Error(`${this.label}: ${reasonOf(answer)}`);
  }

  [Symbol.dispose](): void {
    this.#child.kill();
  }

  async #ask(request: Request): Promise<Answer> {
    if (!this.#child.connected) return { kind: "missing", reason: "its process has ended" };
    const answer = answerOf(this.#child);
    // A process that ends while it is asked breaks the pipe, perhaps after its exit was announced.
    const refused = new Promise<Answer>((resolve) => {
      this.#child.send(request, (error) => {
        if (error === null) return;
        resolve({ kind: "missing", reason: `its process has ended (${error.message})` });
      });
    });
    return Promise.race([answer, refused]);
  }
}

function reasonOf(answer: Answer): string {
  return answer.kind === "missing" ? answer.reason : `answered '${answer.kind}'`;
}

/** The next answer, or that the process ended. */
function answerOf(child: ChildProcess): Promise<Answer> {
  return new Promise((resolve) => {
    const ended = (code: number | null, signal: string | null): void => {
      child.off("message", answered);
      resolve({ kind: "missing", reason: `its process ended (${signal ?? code})` });
    };
    const answered = (answer: unknown): void => {
      child.off("exit", ended);
      resolve(answer as Answer);
    };
    child.once("message", answered);
    child.once("exit", ended);
  });
}
