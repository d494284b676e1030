// Publishes a sink in a thread that its test ends in the middle.

import { parentPort, workerData } from "node:worker_threads";
import type { DataSet } from "../src/index.ts";
import { publishSink } from "../src/task/ops/sink.ts";
import type { SinkPlace } from "../src/task/task.ts";

const { place, partitions } = workerData as {
  readonly place: SinkPlace;
  readonly partitions: readonly DataSet[];
};
parentPort?.postMessage("begins");
await publishSink({ kind: "sink-publish", place }, partitions);
parentPort?.postMessage("published");
