// A peer's process: `node worker.ts NAME THREADS`, started by process.ts, which sends requests and
// gets answers over the channel of `fork`.

import { adapters } from "./adapters.ts";
import type { Answer, Peer, Prepared, Request, Variant } from "./peer.ts";
import { checkedValues, type Problem } from "./problem.ts";

const [name, threads] = process.argv.slice(2);
const send = (answer: Answer): void => {
  process.send?.(answer);
};

let current: { problem: Problem; prepared: Prepared; variant: Variant } | undefined;
let turn = 0;

async function timeCall({ problem, variant }: NonNullable<typeof current>): Promise<number> {
  const start = performance.now();
  await variant.call(turn++ % problem.copies);
  return (performance.now() - start) * 1000;
}

/** Puts the matrices in place and chooses the variant that is fastest, each tried in turn. */
async function prepare(peer: Peer, problem: Problem): Promise<Answer> {
  current?.prepared.free();
  current = undefined;
  const prepared = await peer.prepare(problem);
  const tried = prepared.variants.map((variant) => ({ problem, prepared, variant }));
  let values: number[] = [];
  for (const one of tried) {
    turn = 0;
    await timeCall(one); // Copy 0, the one that is compared.
    values = checkedValues(await prepared.output(), problem);
  }
  let best = Number.POSITIVE_INFINITY;
  for (let round = 0; round < 5; round++) {
    for (const one of tried) {
      const us = await timeCall(one);
      if (us >= best) continue;
      best = us;
      current = one;
    }
    if (tried.length === 1) break;
  }
  return { kind: "prepared", values };
}

async function burst(milliseconds: number): Promise<Answer> {
  if (current === undefined) throw new Error("nothing was prepared");
  const samples: number[] = [];
  const end = performance.now() + milliseconds;
  while (samples.length === 0 || performance.now() < end) samples.push(await timeCall(current));
  return { kind: "measured", burst: { variant: current.variant.name, samples } };
}

const adapter = adapters.find((one) => one.name === name);
try {
  const peer = (await adapter?.open(Number(threads))) as Peer;
  process.on("message", async (request: Request) => {
    try {
      const { kind } = request;
      send(
        await (kind === "prepare" ? prepare(peer, request.problem) : burst(request.milliseconds)),
      );
    } catch (error) {
      send({ kind: "missing", reason: (error as Error).message });
    }
  });
  send({ kind: "opened", version: peer.version });
} catch (error) {
  send({ kind: "missing", reason: (error as Error).message.split("\n")[0] as string });
  process.disconnect?.();
}
