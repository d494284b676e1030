// An executor as a child process of the scheduler. It ends when told, or when its parent is gone.

import { Executor } from "./executor.ts";
import type { ExecutorStart, ToExecutor } from "./protocol.ts";

const start = JSON.parse(process.argv[2] ?? "{}") as ExecutorStart;
const executor = new Executor(start, (message) => process.send?.(message));
process.on("message", (message: ToExecutor) => {
  if ("shutdown" in message) {
    executor.close();
    process.exit(0);
  }
  executor.take(message);
});
setInterval(() => process.send?.({ alive: Date.now() }), 500).unref();
process.on("disconnect", () => process.exit(0));
