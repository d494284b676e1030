// How smoothly the trace page moves over a million events: times between the browser's own frames
// while keys are held, and what drawing took of them. Run it with `node --conditions=@open-
// infra/source packages/console/bench/frames.ts [EVENTS]`; it is not one of the rows of `npm run
// bench`, since the limit is the screen's, not the machine's.

import { mkdtempSync, rmSync, statSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { buildConsole } from "../build.ts";
import { launchChromium, openPage } from "../test/helpers/browser.ts";
import { sampleStats } from "../test/helpers/sample-stats.ts";
import { ScriptedServer } from "../test/helpers/scripted-server.ts";
import { writeLargeTrace } from "../test/helpers/trace-files.ts";

/** What one held key gave; times in milliseconds. */
interface KeyRun {
  readonly key: string;
  readonly framesMs: readonly number[];
  readonly drawsMs: readonly number[];
  readonly rectangles: number;
  readonly rows: number;
}

/** Holds a key in the page and watches the frames go by. */
const holdKey = `async (key, ms) => {
  const canvas = document.querySelector(".timeline-lanes canvas");
  const press = (type) => dispatchEvent(new KeyboardEvent(type, { key }));
  const framesMs = [], drawsMs = [];
  let rectangles = 0;
  press("keydown");
  // The first frame is the wait for the key, not a frame of the motion.
  let last = await new Promise(requestAnimationFrame);
  const end = performance.now() + ms;
  while (performance.now() < end) {
    const now = await new Promise(requestAnimationFrame);
    framesMs.push(now - last);
    last = now;
    drawsMs.push(Number(canvas.dataset.drawMs));
    rectangles = Math.max(rectangles, Number(canvas.dataset.rectangles));
  }
  press("keyup");
  await new Promise((resolve) => setTimeout(resolve, 500));
  return { key, framesMs, drawsMs, rectangles, rows: Number(canvas.dataset.rows) };
}`;

const holds: readonly (readonly [string, number])[] = [
  ["w", 1500],
  ["d", 1000],
  ["a", 1000],
  ["s", 1500],
  ["w", 700],
  ["d", 800],
];

function quantile(values: readonly number[], share: number): string {
  const sorted = values.toSorted((a, b) => a - b);
  return (sorted[Math.floor(share * (sorted.length - 1))] as number).toFixed(1);
}

function describe(name: string, values: readonly number[]): string {
  const parts = [0.5, 0.95, 0.99, 1].map((share) => quantile(values, share));
  return `${name} ms: median ${parts[0]}, 95 % ${parts[1]}, 99 % ${parts[2]}, longest ${parts[3]}`;
}

const folder = mkdtempSync(join(tmpdir(), "open-infra-frames-"));
const path = join(folder, "trace.json");
const events = writeLargeTrace(path, Number(process.argv[2] ?? 1_000_000), 7);
const megabytes = Math.round(statSync(path).size / 1e6);
console.log(`${events.toLocaleString("en-US")} events, ${megabytes} MB of JSON`);
const [{ dir }, browser] = await Promise.all([buildConsole({ ifStale: true }), launchChromium()]);
await using server = await ScriptedServer.start(dir, {
  models: ["demo"],
  stats: () => sampleStats(),
  statsIntervalMs: 1000,
  complete: () => undefined,
});

for (const [width, height, scale] of [
  [1440, 900, 1],
  [1920, 1200, 2],
] as const) {
  const viewport = { width, height };
  const { page } = await openPage(browser, { viewport, deviceScaleFactor: scale });
  await page.goto(`${server.url}#/trace`);
  const chosenMs = performance.now();
  await page.locator("input[type=file]").setInputFiles(path);
  await page.locator(".timeline-lanes canvas[data-frames]").waitFor({ timeout: 120_000 });
  const openedMs = performance.now() - chosenMs;
  const runs: KeyRun[] = [];
  for (const [key, ms] of holds) {
    runs.push((await page.evaluate(`(${holdKey})(${JSON.stringify(key)}, ${ms})`)) as KeyRun);
  }
  const rectangles = Math.max(...runs.map((run) => run.rectangles));
  const rows = Math.max(...runs.map((run) => run.rows));
  console.log(`${width} × ${height}, ${scale} device pixels a CSS pixel:`);
  console.log(`  on the screen after ${(openedMs / 1000).toFixed(1)} s`);
  console.log(
    `  ${describe(
      "frame",
      runs.flatMap(({ framesMs }) => framesMs),
    )}`,
  );
  console.log(
    `  ${describe(
      "drawing",
      runs.flatMap(({ drawsMs }) => drawsMs),
    )}`,
  );
  console.log(`  at most ${rectangles.toLocaleString("en-US")} rectangles in ${rows} rows`);
  await page.context().close();
}
await browser.close();
rmSync(folder, { recursive: true, force: true });
