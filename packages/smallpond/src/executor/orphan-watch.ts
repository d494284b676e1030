// A thread that ends its process when the parent is gone. The process's own loop may be in a user's
// endless function, so it cannot watch for itself.

import { workerData } from "node:worker_threads";

const everyMs = 500;

setInterval(() => {
  if (process.ppid !== workerData) process.kill(process.pid, "SIGKILL");
}, everyMs);
