// A progress bar on stderr: redrawn in place on a terminal, one line every few seconds elsewhere.

import type { CliContext } from "./context.ts";

const REDRAW_MS = 80;
const PLAIN_LINE_MS = 5_000;
const BAR_WIDTH = 28;

export interface Progress extends Disposable {
  /** Reports `done` of `total`; starts a new bar when `phase` changes. */
  update(phase: string, done: number, total: number): void;
}

export interface ProgressOptions {
  /** How amounts are written. @default plain counts */
  readonly format?: (phase: string, done: number, total: number) => string;
}

/** Bytes in binary units, one decimal. */
export function formatBytes(bytes: number): string {
  const units = ["B", "KiB", "MiB", "GiB", "TiB"];
  let unit = 0;
  while (bytes >= 1024 && unit < units.length - 1) {
    bytes /= 1024;
    unit++;
  }
  return `${unit === 0 ? bytes : bytes.toFixed(1)} ${units[unit]}`;
}

export function createProgress(context: CliContext, options: ProgressOptions = {}): Progress {
  const { stderr } = context.process;
  const format = options.format ?? ((_phase, done, total) => `${done}/${total}`);
  const tty = stderr.isTTY === true;
  let phase = "";
  let phaseStart = 0;
  let lastDraw = 0;

  const draw = (done: number, total: number): void => {
    const fraction = total > 0 ? Math.min(1, done / total) : 1;
    const seconds = (performance.now() - phaseStart) / 1000;
    const finished = done >= total;
    const eta =
      fraction > 0.02 && !finished ? ` ETA ${Math.ceil(seconds / fraction - seconds)} s` : "";
    const amounts = format(phase, done, total);
    if (tty) {
      const filled = Math.round(fraction * BAR_WIDTH);
      const bar = "█".repeat(filled) + "░".repeat(BAR_WIDTH - filled);
      stderr.write(`\r\x1b[K${phase.padEnd(10)} ${bar} ${amounts} ${seconds.toFixed(1)} s${eta}`);
      if (finished) stderr.write("\n");
    } else {
      stderr.write(`${phase}: ${amounts} (${seconds.toFixed(1)} s${eta})\n`);
    }
  };

  return {
    update: (next, done, total) => {
      const now = performance.now();
      if (next !== phase) {
        phase = next;
        phaseStart = now;
        lastDraw = tty ? 0 : now;
      }
      const finished = done >= total;
      if (!finished && now - lastDraw < (tty ? REDRAW_MS : PLAIN_LINE_MS)) return;
      lastDraw = now;
      draw(done, total);
    },
    [Symbol.dispose]: () => {
      if (tty) stderr.write("\r\x1b[K");
    },
  };
}
