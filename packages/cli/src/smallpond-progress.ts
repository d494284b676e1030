// A running smallpond job on stderr: on a terminal a bar over all tasks and a line for each step
// that runs, redrawn in place; elsewhere a line every few seconds.

import type { JobView, StepView } from "@open-infra/smallpond";
import type { CliContext } from "./context.ts";
import { formatBytes } from "./progress.ts";
import { counted, ellipsis, formatNumber } from "./table.ts";

const barWidth = 28;
const plainLineMs = 5_000;
/** Steps shown at once. */
const stepsMax = 8;
const textWidth = 48;

/** Draws a job's view. */
export class JobProgress {
  readonly #context: CliContext;
  readonly #tty: boolean;
  /** Lines of the block that is on the terminal. */
  #drawn = 0;
  #lastLineMs: number;

  constructor(context: CliContext, nowMs: number) {
    this.#context = context;
    this.#tty = context.process.stderr.isTTY === true;
    this.#lastLineMs = nowMs;
  }

  /** Shows where the job is. */
  draw(view: JobView, nowMs: number): void {
    const { stderr } = this.#context.process;
    if (this.#tty) {
      const lines = linesOf(view, nowMs);
      this.clear();
      stderr.write(`${lines.join("\n")}\n`);
      this.#drawn = lines.length;
    } else if (nowMs - this.#lastLineMs >= plainLineMs) {
      this.#lastLineMs = nowMs;
      stderr.write(`smallpond: ${plainLine(view)}\n`);
    }
  }

  /** Takes the block away, so that something else can be written. */
  clear(): void {
    if (this.#drawn > 0) this.#context.process.stderr.write(`\x1b[${this.#drawn}A\x1b[J`);
    this.#drawn = 0;
  }
}

function linesOf(view: JobView, nowMs: number): string[] {
  const { tasks, done } = view.progress;
  const seconds = (nowMs - (view.startedMs ?? nowMs)) / 1000;
  const part = tasks === 0 ? 0 : done / tasks;
  const filled = Math.round(part * barWidth);
  const bar = "█".repeat(filled) + "░".repeat(barWidth - filled);
  const eta =
    part > 0.02 && part < 1 ? `, about ${Math.ceil(seconds / part - seconds)} s left` : "";
  const head = `${bar} ${done}/${tasks} tasks, ${seconds.toFixed(1)} s${eta}`;
  const running = [...view.steps.values()].filter((step) => step.running > 0);
  const shown = running.slice(0, stepsMax).map(stepLine);
  const more = running.length > stepsMax ? [`  and ${running.length - stepsMax} more steps`] : [];
  return [head, ...shown, ...more];
}

function stepLine(step: StepView): string {
  const { node, done, tasks, running, retries, rows, bytes, text } = step;
  const facts = [
    `${done}/${Math.max(tasks, done)}`,
    `${running} run`,
    ...(retries > 0 ? [counted(retries, "retry")] : []),
    ...(rows > 0 ? [`${formatNumber(rows)} rows, ${formatBytes(bytes)}`] : []),
  ];
  return `  ${node}  ${facts.join("  ")}  ${ellipsis(text, textWidth)}`;
}

function plainLine(view: JobView): string {
  const { tasks, done, running } = view.progress;
  const steps = [...view.steps.values()]
    .filter((step) => step.running > 0)
    .slice(0, stepsMax)
    .map((step) => `${step.node} ${step.done}/${Math.max(step.tasks, step.done)}`);
  const which = steps.length === 0 ? "" : `: ${steps.join(", ")}`;
  return `${done}/${tasks} tasks, ${running} run${which}`;
}
