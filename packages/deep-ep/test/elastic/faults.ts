// A rank of faults.test.ts: does what its part says, and reports how it ended as plain data.

import { setTimeout as sleep } from "node:timers/promises";
import { Worker } from "node:worker_threads";
import { ElasticBuffer } from "@open-infra/deep-ep";
import { type Group, GroupError } from "@open-infra/ranks";
import { Tensor } from "@open-infra/tensor";

/** Where the odd rank stops. */
export const phases = ["dispatch", "combine", "all-gather", "pipeline"] as const;

/** What a rank is given; plain data. */
export interface FaultData {
  /** The rank that differs, or dies. */
  readonly odd: number;
  /** It gives these options of dispatch. */
  readonly options?: Readonly<Record<string, number | boolean>>;
  /** It makes its buffer with these. */
  readonly create?: Readonly<Record<string, number | boolean>>;
  /** It has so many columns or selections. */
  readonly hidden?: number;
  readonly topk?: number;
  /** It is killed before this phase: its process, by itself. */
  readonly dies?: (typeof phases)[number];
  /** It stays away from this phase until the group has failed. */
  readonly absent?: (typeof phases)[number];
  /** All dispatch and combine over and over; it is killed after so many milliseconds. */
  readonly diesAfterMs?: number;
}

/** How a rank ended. */
export interface Ending {
  readonly name: string;
  readonly message: string;
  readonly peer: number;
  readonly operation: string;
}

const tokens = 4;

export default async function faults(group: Group, data: FaultData): Promise<Ending> {
  try {
    await body(group, data);
    return { name: "none", message: "", peer: -1, operation: "" };
  } catch (error) {
    const { name, message } = error as Error;
    const { peer, operation } = error instanceof GroupError ? error : { peer: -1, operation: "" };
    return { name, message, peer, operation };
  }
}

async function body(group: Group, data: FaultData): Promise<void> {
  const odd = group.rank === data.odd;
  const hidden = (odd ? data.hidden : undefined) ?? 64;
  const topk = (odd ? data.topk : undefined) ?? 2;
  const buffer = await ElasticBuffer.create(group, {
    ...{ numMaxTokensPerRank: tokens, hidden: 64, numTopk: 4 },
    ...(odd && data.create),
  });
  const enter = async (phase: (typeof phases)[number]): Promise<void> => {
    if (odd && data.dies === phase) process.kill(process.pid, "SIGKILL");
    // Looking fails once the group has.
    for (; odd && data.absent === phase; group.check()) await sleep(20);
  };
  const x = Tensor.empty([tokens, hidden], "bf16").fill(1);
  const list = Array.from(
    { length: tokens * topk },
    (_, i) => (i * 3 + group.rank) % (2 * group.size),
  );
  const topkIdx = Tensor.from(list, [tokens, topk], "i64");
  await enter("dispatch");
  const options = { topkIdx, numExperts: 2 * group.size, ...(odd && data.options) };
  if (odd && data.diesAfterMs !== undefined) dieAfter(data.diesAfterMs);
  do {
    const { recvX, handle } = buffer.dispatch(x, options);
    buffer.dispatch(x, { handle });
    await enter("combine");
    buffer.combine(recvX, { handle });
  } while (data.diesAfterMs !== undefined);
  buffer.barrier();
  buffer.agrsSetConfig(4096, 2);
  buffer.createAgrsSession();
  await enter("all-gather");
  buffer.allGather(Tensor.empty([8], "u8")).wait();
  buffer.destroyAgrsSession();
  buffer.ppSetConfig(64, 2);
  await enter("pipeline");
  const t = Tensor.empty([64], "u8");
  for (const step of [1, group.size - 1]) {
    buffer.ppSend(t, (group.rank + step) % group.size, { asyncWithComputeStream: true });
    buffer.ppRecv(t, (group.rank + group.size - step) % group.size);
  }
  buffer.destroy();
}

/** Kills this process from another thread, whatever this one is in then. */
function dieAfter(ms: number): void {
  const code = `setTimeout(() => process.kill(process.pid, "SIGKILL"), ${ms})`;
  new Worker(code, { eval: true }).unref();
}
