// An executor as a process: `node executor-process.js JSON`. Launchers give the job's folder only,
// `{"jobRoot": "…"}`; what they start is a supervisor, and the executor proper is its child,
// started anew if it crashes or was taken for lost. A session's local executors are children of
// the session.

import { IpcChild } from "../channel/ipc-child.ts";
import { runExecutor, serve } from "./run-executor.ts";
import type { ProcessStart } from "./supervise.ts";
import { superviseExecutor } from "./supervise.ts";

const start = JSON.parse(process.argv[2] ?? "{}") as ProcessStart;
if (start.role === undefined) process.exit(await superviseExecutor(start));
// Whoever started it is gone.
process.on("disconnect", () => process.exit(0));
const controller = new AbortController();
process.on("SIGTERM", () => controller.abort("it got SIGTERM"));
const { signal } = controller;
const end =
  start.role === "piped"
    ? await serve(new IpcChild(), { ...start, signal, driverSilentMs: Number.POSITIVE_INFINITY })
    : await runExecutor({ ...start, signal });
process.exit(end === "rejoin" ? start.rejoinCode : 0);
