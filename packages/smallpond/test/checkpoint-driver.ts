// A driver as a program whose job checkpoints; the test kills it and starts it again.

import { fromModule, init } from "../src/index.ts";
import { textOf } from "./checkpoint-steps.ts";

const [root, log] = process.argv.slice(2) as [string, string];
const session = await init({ jobId: "job", dataRoot: root, numExecutors: 1, executorCpus: 1 });
const items = Array.from({ length: 3000 }, (_, i) => ({ i }));
const noted = fromModule(new URL("./checkpoint-steps.ts", import.meta.url), "noted", [log]);
const frame = (await session.fromItems(items)).mapBatches(noted, {
  batchRows: 10,
  checkpointRows: 100,
});
process.send?.({ rows: textOf(await frame.takeAll()) });
await session.shutdown();
