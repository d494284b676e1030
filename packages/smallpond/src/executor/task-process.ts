// A process that runs one task of a user's code at a time for an executor. What the code does to
// its process (an endless loop, memory without bound, a crash) it does to nobody else.

import { Worker } from "node:worker_threads";
import { serializeError } from "@open-infra/errors";
import { ownModule } from "../own-module.ts";
import { runTask } from "../task/run.ts";
import { EnginePool } from "./engine.ts";
import type { FromTaskProcess, TaskJob, TaskProcessStart } from "./task-pool.ts";

const start = JSON.parse(process.argv[2] ?? "{}") as TaskProcessStart;
new Worker(ownModule("./orphan-watch", import.meta.url), {
  workerData: start.parentPid,
}).unref();
const engine = new EnginePool(start.spill);

function say(message: FromTaskProcess): void {
  process.send?.(message);
}

process.on("message", async ({ bound, staging, limits }: TaskJob) => {
  const before = process.cpuUsage();
  try {
    const outputs = await engine.with(limits, (connection) => runTask(bound, connection, staging));
    const { user, system } = process.cpuUsage(before);
    say({
      outputs,
      cpuMs: (user + system) / 1000,
      maxRssBytes: process.resourceUsage().maxRSS * 1024,
    });
  } catch (error) {
    say({ error: serializeError(error) });
  }
});
process.on("disconnect", () => process.exit(0));
say({ ready: true });
