// Ranks as threads of one process.

import { findCompiler } from "@open-infra/jit";
import { runThreads } from "@open-infra/ranks";
import { requirement } from "@open-infra/testing";
import { contractSuite } from "./contract.ts";

const met = findCompiler() !== undefined || "no C compiler (apt-get install gcc libc6-dev)";

contractSuite({
  name: "the memory of a process",
  run: (options) => runThreads(options),
  sizes: [{ size: 2 }, { size: 4, ranksPerNode: 2 }, { size: 8 }],
  skip: requirement("ranks as threads", met),
});
