// A process that exits while its ranks, which are threads, wait on their event loops for kernels
// that wait for each other: as these threads end one by one, the kernels of the rest end too.

import { type Group, runThreads } from "@open-infra/ranks";
import { openWorkspace, waitForEver } from "./kernels.ts";

export default async function rank(group: Group, waiting: SharedArrayBuffer): Promise<void> {
  const window = await group.openWindow({ name: "work", bytes: 64, flags: 2 });
  const peer = (group.rank + 1) % group.size;
  const values = { window, ...openWorkspace(8), rounds: peer, most: 0, seed: 0 };
  const event = group.enqueue(waitForEver, {}, values);
  Atomics.add(new Int32Array(waiting), 0, 1);
  await event.finished();
}

if (import.meta.main) {
  const size = 6;
  const waiting = new Int32Array(new SharedArrayBuffer(4));
  const options = { size, module: new URL(import.meta.url), data: waiting.buffer };
  runThreads(options).catch(() => process.exit(1));
  setInterval(() => {
    if (Atomics.load(waiting, 0) === size) setTimeout(() => process.exit(7), 50);
  }, 5);
}
