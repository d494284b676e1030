// What a command may touch of the process. Commands get it as `this`, so that a test can run one
// in-process and read what it printed.

import type { CommandContext } from "@stricli/core";

export interface CliContext extends CommandContext {
  readonly process: {
    readonly stdout: { write(text: string): void };
    readonly stderr: { write(text: string): void; readonly isTTY?: boolean | undefined };
    readonly env: Readonly<Partial<Record<string, string>>>;
    exitCode?: number | string | null;
  };
}

/** Prints one JSON document, the only thing on stdout when `--json` is asked. */
export function printJson(context: CliContext, value: unknown): void {
  context.process.stdout.write(`${JSON.stringify(value, null, 2)}\n`);
}

export function printLine(context: CliContext, line = ""): void {
  context.process.stdout.write(`${line}\n`);
}

/** Notes for a person go to stderr, so that stdout can be piped. */
export function note(context: CliContext, line: string): void {
  context.process.stderr.write(`${line}\n`);
}
