// The contract of every transport, over links: TCP and UCX between threads and between processes of
// this host.

import { findCompiler } from "@open-infra/jit";
import { hasUcx, runProcesses, runThreads } from "@open-infra/ranks";
import { requirement } from "@open-infra/testing";
import { contractSuite } from "./contract.ts";

const compiler = findCompiler() !== undefined || "no C compiler (apt-get install gcc libc6-dev)";
const ucx = hasUcx() || "no libucp.so.0 (apt-get install libucx0)";

contractSuite({
  name: "TCP between threads",
  run: (options) => runThreads({ ...options, transport: "tcp" }),
  sizes: [{ size: 2 }, { size: 4, ranksPerNode: 2 }],
  skip: requirement("links over TCP", compiler),
});

contractSuite({
  name: "UCX between processes",
  run: (options) => runProcesses({ ...options, transport: "ucx" }),
  sizes: [{ size: 2 }, { size: 4, ranksPerNode: 2 }],
  skip: requirement("links over UCX", compiler === true ? ucx : compiler),
});
