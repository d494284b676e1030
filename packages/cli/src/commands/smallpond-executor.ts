// `open-infra smallpond executor`: an executor that joins a job from here, uninvited. Ends with the
// job, or after what it runs when it is told to.

import { runExecutor } from "@open-infra/smallpond";
import { type CliContext, note } from "../context.ts";

interface Flags {
  readonly jobRoot: string;
  readonly cpus?: number;
  readonly memory?: number;
}

const endings = {
  shutdown: "the job is over",
  rejoin: "the job took it for lost",
  "driver-gone": "the job's driver is gone",
  stopped: "it was told to end",
} as const;

export default async function executor(this: CliContext, flags: Flags): Promise<void> {
  const controller = new AbortController();
  const interrupt = (signal: string): void => controller.abort(`it got ${signal}`);
  process.on("SIGINT", interrupt);
  process.on("SIGTERM", interrupt);
  note(this, `smallpond: an executor of the job in ${flags.jobRoot}; Ctrl-C ends it`);
  const capacity = {
    ...(flags.cpus !== undefined && { cpus: flags.cpus }),
    ...(flags.memory !== undefined && { memoryBytes: flags.memory }),
  };
  try {
    for (;;) {
      const { signal } = controller;
      const end = await runExecutor({ jobRoot: flags.jobRoot, capacity, signal });
      note(this, `smallpond: ${signal.aborted ? endings.stopped : endings[end]}`);
      // Whom the job took for lost may come anew, under another name.
      if (end !== "rejoin" || signal.aborted) return;
    }
  } finally {
    process.off("SIGINT", interrupt);
    process.off("SIGTERM", interrupt);
  }
}
