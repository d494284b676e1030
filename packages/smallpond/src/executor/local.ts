// Executors as child processes of this one.

import { type ChildProcess, fork } from "node:child_process";
import type { Capacity, ExecutorStart, FromExecutor, ToExecutor } from "./protocol.ts";

/** The scheduler's end of one executor. */
export interface ExecutorHandle {
  readonly id: string;
  readonly capacity: Capacity;
  readonly pid: number;
  send(message: ToExecutor): void;
  onMessage(take: (message: FromExecutor) => void): void;
  /** Called once, when it is gone for good. */
  onExit(take: (reason: string) => void): void;
  /** Ends it, whatever it does. */
  kill(): void;
  /** Lets it end. */
  close(): Promise<void>;
  /** The last lines it wrote to its error stream, for the error that it did not come up. */
  stderrTail?(): string;
}

/** Starts a process. */
export function startLocalExecutor(start: ExecutorStart): ExecutorHandle {
  const source = import.meta.url.endsWith(".ts");
  const file = new URL(source ? "./executor-process.ts" : "./executor-process.js", import.meta.url);
  const flag = "--conditions=@open-infra/source";
  // Not this process's own flags: with `-e` among them, an executor would be the script again.
  const execArgv = source ? [flag] : [];
  const child: ChildProcess = fork(file, [JSON.stringify(start)], {
    execArgv,
    serialization: "json",
    stdio: ["ignore", "inherit", "inherit", "ipc"],
  });
  const exited = new Promise<string>((resolve) => {
    child.once("exit", (code, signal) => resolve(signal ?? `exit code ${code}`));
    child.once("error", (error) => resolve(error.message));
  });
  return {
    id: start.id,
    capacity: start.capacity,
    pid: child.pid ?? 0,
    send: (message) => {
      if (child.connected) child.send(message);
    },
    onMessage: (take) => child.on("message", (message) => take(message as FromExecutor)),
    onExit: (take) => void exited.then(take),
    kill: () => child.kill("SIGKILL"),
    close: async () => {
      if (child.connected) child.send({ shutdown: true } satisfies ToExecutor);
      const timer = setTimeout(() => child.kill("SIGKILL"), 3000);
      await exited;
      clearTimeout(timer);
    },
  };
}
