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

/** Puts the matrices in place, checks nothing, and chooses the variant that is fastest. */
async function prepare(peer: Peer, problem: Problem): Promise<Answer> {
  current?.prepared.free();
  current = undefined;
  const prepared = await peer.prepare(problem);
  let best = Number.POSITIVE_INFINITY;
  let values: number[] = [];
  for (const variant of prepared.variants) {
    const tried = { problem, prepared, variant };
    turn = 0;
    await timeCall(tried); // Copy 0, the one that is compared.
    values = checkedValues(await prepared.output(), problem);
    let fastest = Number.POSITIVE_INFINITY;
    for (let i = 0; i < 3; i++) fastest = Math.min(fastest, await timeCall(tried));
    if (fastest >= best) continue;
    best = fastest;
    current = tried;
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
