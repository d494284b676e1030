// Ranks as processes of one host, with one rank each and with several as threads.

import { findCompiler } from "@open-infra/jit";
import { runProcesses } from "@open-infra/ranks";
import { requirement } from "@open-infra/testing";
import { contractSuite } from "./contract.ts";

const met = findCompiler() !== undefined || "no C compiler (apt-get install gcc libc6-dev)";

contractSuite({
  name: "shared memory of processes",
  run: (options) => runProcesses(options),
  sizes: [{ size: 2 }, { size: 4, ranksPerNode: 2 }],
  skip: requirement("ranks as processes", met),
});

contractSuite({
  name: "processes with threads",
  run: (options) => runProcesses({ ...options, ranksPerProcess: 2 }),
  sizes: [{ size: 4, ranksPerNode: 2 }, { size: 8 }],
  endings: "gone",
  skip: requirement("ranks as threads of processes", met),
});
