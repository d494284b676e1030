// The other end of the channels' bench: sends back what it gets.

import type { Channel } from "../src/channel/channel.ts";
import { IpcChild } from "../src/channel/ipc-child.ts";
import { type JobCard, openChannel } from "../src/channel/job-card.ts";

/** What the process is told. */
export interface EchoJob {
  readonly folder: string;
  /** Pipes if there is none. */
  readonly card?: Pick<JobCard, "space" | "channel" | "secret">;
}

const job = JSON.parse(process.argv[2] as string) as EchoJob;
const channel: Channel =
  job.card === undefined ? new IpcChild() : await openChannel(job.folder, job.card, false);
process.on("disconnect", () => process.exit(0));
await channel.consume("there", ({ id, body, ack }) => {
  void channel.send("back", `r${id}`, body);
  void ack();
});
await channel.send("back", "ready", "ready");
