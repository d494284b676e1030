// The first module of a process with ranks: one rank on the main thread, or each on a thread.

import { type Channel, ChannelStore, parentChannel, serveStore } from "./channel.ts";
import { endWithParent } from "./parent.ts";
import type { ProcessStart } from "./processes.ts";
import { type EndRequest, type RankReport, type RankStart, runRank } from "./rank-run.ts";
import type { Store } from "./store.ts";
import { startThread } from "./threads.ts";

const parent = parentChannel();

/** How long what a rank has left behind (timers, sockets) may keep the process. */
const lingerMs = 2000;

process.once("message", async ({ starts, parent: pid }: ProcessStart) => {
  endWithParent(pid);
  // The same where the system does not do it, as far as the event loop is free.
  process.once("disconnect", () => process.exit(1));
  if (starts.length === 1) await runRank(starts[0] as RankStart, parent);
  else {
    const store = new ChannelStore(parent);
    await Promise.all(starts.map((start) => runThread(start, store)));
  }
  parent.close();
  setTimeout(() => process.exit(0), lingerMs).unref();
});

/** Hands on what passes between a rank and whoever started this process. */
async function runThread(start: RankStart, store: Store): Promise<void> {
  const { rank } = start.join;
  const { channel, ended, kill } = startThread(start);
  serveStore(channel, store);
  let reported = false;
  channel.listen((message) => {
    if (typeof (message as RankReport)?.rank !== "number") return;
    reported = true;
    parent.post(message as RankReport);
  });
  forwardEnd(channel);
  const how = await ended;
  kill();
  if (reported) return;
  parent.post({ rank, exit: how } satisfies RankReport);
}

function forwardEnd(channel: Channel): void {
  parent.listen((message) => {
    if ((message as EndRequest)?.endRanks !== undefined) channel.post(message as EndRequest);
  });
}
