// A consumer in a process of its own, for the channels' contract. `record` writes down each message
// and acknowledges it; `hold` takes and never acknowledges.

import { appendFileSync } from "node:fs";
import { join } from "node:path";
import type { Channel } from "../../src/channel/channel.ts";
import { IpcChild } from "../../src/channel/ipc-child.ts";
import { type JobCard, openChannel } from "../../src/channel/job-card.ts";

/** What the process is told. */
export interface ConsumerJob {
  readonly name: string;
  readonly mode: "record" | "hold";
  /** Pipes if there is none. */
  readonly card?: Pick<JobCard, "space" | "channel" | "secret">;
  readonly folder: string;
  readonly leaseMs: number;
  readonly inFlight: number;
}

const job = JSON.parse(process.argv[2] as string) as ConsumerJob;
const channel: Channel =
  job.card === undefined ? new IpcChild() : await openChannel(job.folder, job.card, false);
const note = (line: string): void =>
  appendFileSync(join(job.folder, `${job.name}.log`), `${line}\n`);
process.on("disconnect", () => process.exit(1));
const alive = setInterval(() => channel.beat(job.name, "here"), 100);
const { leaseMs, inFlight } = job;
await channel.consume(
  "work",
  async ({ body, redelivered, ack }) => {
    note(`${body}${redelivered ? " again" : ""}`);
    if (job.mode === "hold") return;
    await ack();
  },
  { leaseMs, inFlight },
);
// Stops are each process's own.
await channel.consume(`stop-${job.name}`, async ({ ack }) => {
  await ack();
  clearInterval(alive);
  await channel.close();
  process.exit(0);
});
