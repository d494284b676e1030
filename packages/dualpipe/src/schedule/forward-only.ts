// The forwards of a schedule, for inference: the original runs the same list with backwards that do
// nothing; here they are left out, with their transfers.

import { OpKind, type RankOps, RankOpsBuilder, type Schedule } from "./schedule.ts";

function forwardsOf(ops: RankOps): RankOps {
  const kept = new RankOpsBuilder(ops.length);
  for (let i = 0; i < ops.length; i++) {
    const kind = ops.kind[i] as OpKind;
    if (kind === OpKind.F || kind === OpKind.SendF || kind === OpKind.RecvF) kept.copy(ops, i);
    if (kind !== OpKind.FB) continue;
    kept.push(
      OpKind.F,
      ops.direction[i] as number,
      ops.stage[i] as number,
      ops.microBatch[i] as number,
      ops.phase[i] as number,
    );
  }
  return kept.finish();
}

/** The schedule with forwards and their transfers only. */
export function forwardOnly(schedule: Schedule): Schedule {
  return { ...schedule, ranks: schedule.ranks.map(forwardsOf) };
}
