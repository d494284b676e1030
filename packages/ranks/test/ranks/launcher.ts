// A process that starts ranks which wait for ever, for the test that kills it.

import { runProcesses } from "@open-infra/ranks";
import type { VictimData } from "./victim.ts";

const data: VictimData = { victim: 0, signal: "none", phase: "kernel" };
const module = new URL("./victim.ts", import.meta.url);
await runProcesses({
  ...{ size: 4, ranksPerProcess: 2, data, module, timeoutMs: 60_000 },
  onStart: (pid) => console.log(pid),
});
