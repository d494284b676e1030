// What a machine has left, for an executor's sign of life.

import { totalmem } from "node:os";
import type { Load } from "./protocol.ts";

/** Memory of this machine, or of the container this process is in. */
export function machineLoad(): Load {
  const constrained = process.constrainedMemory();
  const total = totalmem();
  const totalMemoryBytes = constrained > 0 ? Math.min(constrained, total) : total;
  return { freeMemoryBytes: process.availableMemory(), totalMemoryBytes };
}
