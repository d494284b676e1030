// `open-infra launch`: starts ranks, waits, reports the first failure.

import { launchRanks } from "@open-infra/ranks";
import { type CliContext, note, printJson } from "../context.ts";
import { integer } from "../parse.ts";

interface Flags {
  readonly nnodes: number;
  readonly nodeRank: number;
  readonly nprocPerNode: number;
  readonly masterAddr?: string;
  readonly masterPort?: number;
  readonly transport?: "auto" | "shm" | "ucx" | "tcp";
  readonly timeout: number;
  readonly grace: number;
  readonly prefix: boolean;
  readonly json: boolean;
}

export default async function launch(
  this: CliContext,
  flags: Flags,
  ...command: string[]
): Promise<void> {
  const { env } = this.process;
  const several = flags.nnodes > 1;
  // For one node the variables of an outer launch say nothing about this one.
  const masterHost = flags.masterAddr ?? (several ? env.MASTER_ADDR : undefined);
  const outerPort = several && env.MASTER_PORT ? integer(1, 65_535)(env.MASTER_PORT) : undefined;
  const masterPort = flags.masterPort ?? outerPort;
  const result = await launchRanks({
    command,
    ranksPerNode: flags.nprocPerNode,
    nodes: flags.nnodes,
    nodeRank: flags.nodeRank,
    timeoutMs: Math.round(flags.timeout * 1000),
    graceMs: Math.round(flags.grace * 1000),
    prefix: flags.prefix,
    env,
    onWarning: (message) => note(this, `open-infra: ${message}`),
    ...(masterHost !== undefined && { masterHost }),
    ...(masterPort !== undefined && { masterPort }),
    ...(flags.transport !== undefined && { transport: flags.transport }),
    // Stdout is the summary's alone.
    ...(flags.json && { stdout: process.stderr, stderr: process.stderr }),
  });
  if (flags.json) printJson(this, result);
  else if (result.failure !== undefined) note(this, `open-infra: ${result.failure.message}`);
  this.process.exitCode = result.exitStatus;
}
