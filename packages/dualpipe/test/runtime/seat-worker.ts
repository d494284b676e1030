// One rank of a DualPipe in a thread that the test starts itself: the original's way, in which
// every rank calls `step`.

import { parentPort, workerData } from "node:worker_threads";
import { DualPipe } from "../../src/runtime/dual-pipe.ts";
import { MlpStage, mseLoss } from "../../src/runtime/reference/mlp-stage.ts";
import { type SharedTensor, shareTensor, unshareTensor } from "../../src/runtime/values.ts";
import { type WorkerSeat, WorkerTransport } from "../../src/runtime/worker-transport.ts";

const { seat, x, t, numChunks } = workerData as {
  seat: WorkerSeat;
  x: SharedTensor;
  t: SharedTensor;
  numChunks: number;
};
const mlp = { features: 4, hidden: 8, dtype: "f64" } as const;
const transport = new WorkerTransport(seat);
const stages = [new MlpStage(mlp, seat.rank), new MlpStage(mlp, 1 - seat.rank)] as const;
const pipe = new DualPipe({ stages, transport, timeoutMs: 20_000 });
const options = { numChunks, criterion: mseLoss, labels: [unshareTensor(t)] };
const { losses } = await pipe.step([unshareTensor(x)], options);
await pipe.syncGradients();
parentPort?.postMessage({ losses, gradients: stages[0].gradients().map(shareTensor) });
