// A driver as a program: tests start it, kill it and start it again.

import { fileURLToPath } from "node:url";
import { fromModule, init } from "../src/index.ts";

const [root, kind] = process.argv.slice(2) as [string, string];
const session = await init({ jobId: "job", dataRoot: root, numExecutors: 2, executorCpus: 1 });
process.send?.({ pids: Object.values(session.executorPids) });
let started = 0;
let finished = 0;
session.listen(({ type }) => {
  if (type === "started") started++;
  if (type === "finished") process.send?.({ finished: ++finished });
});
const url = new URL("./steps.ts", import.meta.url);
const step = kind === "endless" ? fromModule(url, "endless") : fromModule(url, "slow", [30]);
const items = Array.from({ length: 300 }, (_, i) => i);
const frame = (await session.fromItems(items)).repartition(30, { byRows: true }).mapBatches(step);
const begin = performance.now();
const rows = await frame.count();
process.send?.({ rows, started, ms: performance.now() - begin, file: fileURLToPath(url) });
await session.shutdown();
