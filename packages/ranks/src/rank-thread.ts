// What a rank's thread runs: joins the group, calls the module's function, reports how it ended.

import { parentPort, workerData } from "node:worker_threads";
import { serializeError } from "@open-infra/errors";
import { type Group, joinGroup } from "./group.ts";
import { ThreadStore } from "./thread-store.ts";
import type { RankStart } from "./threads.ts";

const start = workerData as RankStart;
const port = parentPort as NonNullable<typeof parentPort>;

async function main(): Promise<unknown> {
  const module = (await import(start.module)) as Record<string, unknown>;
  const body = module[start.export] as (group: Group, data: unknown) => unknown;
  const group = await joinGroup({ ...start.join, store: new ThreadStore() });
  let result: unknown;
  try {
    result = await body(group, start.data);
  } catch (error) {
    group.abort(`rank ${group.rank} threw: ${error instanceof Error ? error.message : error}`);
    await group.close();
    throw error;
  }
  await group.close();
  return result;
}

main().then(
  (result) => port.postMessage({ result }),
  (error) => port.postMessage({ error: serializeError(error) }),
);
