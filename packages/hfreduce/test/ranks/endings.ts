// Ranks that contradict each other, do not come, or are killed in the middle; each says how it
// learned of it.

import { type Group, GroupError } from "@open-infra/ranks";
import { type DType, Tensor } from "@open-infra/tensor";
import { openReducer } from "../../src/index.ts";

/** What the last rank does otherwise. */
export interface EndingData {
  readonly ending:
    | "count"
    | "dtype"
    | "op"
    | "root"
    | "kind"
    | "devices"
    | "algorithm"
    | "late"
    | "killed"
    | "sizes";
  /** Which operation of many the rank is killed or stopped in. */
  readonly operations?: number;
  /** Who ends. @default the last rank */
  readonly victim?: number;
  readonly algorithm?: "tree" | "ring";
  /** Elements; many, so that there is a middle to be killed in. @default 5000 */
  readonly count?: number;
  /** From the start of the operation to the end of the rank. @default 0 */
  readonly afterUs?: number;
  /** @default SIGKILL */
  readonly signal?: "SIGKILL" | "SIGSTOP";
}

interface Call {
  readonly kind: "allreduce" | "reduce";
  readonly dtype: DType;
  readonly op: "sum" | "max";
  readonly count: number;
  readonly root: number;
  readonly devices: number;
  readonly algorithm: "tree" | "ring";
}

const usual: Call = {
  kind: "allreduce",
  dtype: "f32",
  op: "sum",
  count: 5000,
  root: 0,
  devices: 1,
  algorithm: "tree",
};

const unusual: Partial<Record<EndingData["ending"], Partial<Call>>> = {
  count: { count: 5001 },
  dtype: { dtype: "bf16" },
  op: { op: "max" },
  root: { kind: "reduce", root: 1 },
  kind: { kind: "reduce" },
  devices: { devices: 2 },
  algorithm: { algorithm: "ring" },
};

/** Ends this process while its kernel's thread is at work. */
function endAfter({ afterUs = 0, signal = "SIGKILL" }: EndingData): void {
  const end = performance.now() + afterUs / 1000;
  while (performance.now() < end);
  process.kill(process.pid, signal);
}

export default async function run(group: Group, data: EndingData): Promise<object | string> {
  const { ending, operations = 1, victim = group.size - 1 } = data;
  const odd = group.rank === victim;
  try {
    const chunkBytes = odd && ending === "sizes" ? 8192 : 4096;
    const reducer = await openReducer(group, { chunkBytes, smallBytes: 256 });
    const call = {
      ...usual,
      ...(ending === "root" && { kind: "reduce" as const }),
      ...(data.algorithm !== undefined && { algorithm: data.algorithm }),
      ...(data.count !== undefined && { count: data.count }),
    };
    const { kind, dtype, op, count, root, devices, algorithm } = {
      ...call,
      ...(odd ? unusual[ending] : {}),
    };
    const buffers = Array.from({ length: devices }, () => Tensor.empty([count], dtype));
    if (odd && ending === "late") {
      // Until the others have given up.
      for (;;) {
        await new Promise((resolve) => setTimeout(resolve, 20));
        group.check();
      }
    }
    for (let i = 0; i < operations; i++) {
      const event =
        kind === "allreduce"
          ? reducer.allreduce(buffers, { op, algorithm })
          : reducer.reduce(buffers, { op, root });
      if (odd && ending === "killed" && i === operations - 1) endAfter(data);
      await event.finished();
    }
    return "done";
  } catch (error) {
    // Whoever returns has not failed, and would wait for the one that is stopped.
    if (!(error instanceof GroupError) || data.signal === "SIGSTOP") throw error;
    const { name, peer, operation, message } = error;
    return { name, peer, operation, message };
  }
}
