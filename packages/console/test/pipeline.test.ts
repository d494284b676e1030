// The pipeline page in headless Chromium: its figures are those of the package, cells and memory
// tell themselves, schedules are compared and chosen, links bring the same view, exports are what
// the command gives. Any complaint of the browser fails a test.

import { mkdtempSync, readFileSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { type BuiltInName, buildSchedule, simulate } from "@open-infra/dualpipe";
import { hasProgram, requirement } from "@open-infra/testing";
import type { Browser, BrowserContextOptions, Page } from "playwright-core";
import { afterAll, beforeAll, describe, expect, it } from "vitest";
import { buildConsole } from "../build.ts";
import { formatTime } from "../web/src/pages/pipeline/timeline/cells.ts";
import { AXIS_PX, GUTTER_PX, pipelineLayout } from "../web/src/pages/pipeline/timeline/layout.ts";
import { CHROMIUM_MISSING, launchChromium } from "./helpers/browser.ts";
import {
  figureOf,
  pixelOf,
  runCommand,
  saved,
  screenshot,
  withConsolePage,
} from "./helpers/console-page.ts";

const skip = requirement("pipeline page in Chromium", hasProgram("chromium") || CHROMIUM_MISSING);

/** What the canvas tells of its last frame. */
interface FrameReport {
  readonly rectangles: number;
  readonly labels: number;
  readonly frames: number;
  readonly rows: number;
  readonly start: number;
  readonly end: number;
}

describe.skipIf(skip)("the pipeline page", () => {
  let browser: Browser;
  let dir: string;
  let folder: string;

  beforeAll(async () => {
    folder = mkdtempSync(join(tmpdir(), "open-infra-pipeline-page-"));
    [{ dir }, browser] = await Promise.all([buildConsole({ ifStale: true }), launchChromium()]);
  });

  afterAll(async () => {
    await browser?.close();
    rmSync(folder, { recursive: true, force: true });
  });

  const withPage = (
    address: string,
    test: (page: Page, url: string) => Promise<void>,
    options: BrowserContextOptions = {},
  ): Promise<void> => withConsolePage({ browser, dir }, address, test, options);

  const drawn = (page: Page) => page.locator(".pipeline-cells[data-frames]").waitFor();
  const readout = (page: Page) => page.locator(".pipeline-readout");
  const report = async (page: Page): Promise<FrameReport> => {
    const data = await page.evaluate("({ ...document.querySelector('.pipeline-cells').dataset })");
    const entries = Object.entries(data as Record<string, string>);
    return Object.fromEntries(entries.map(([name, text]) => [name, Number(text)])) as never;
  };
  /** Waits until the view stands still. */
  const settled = async (page: Page): Promise<FrameReport> => {
    let before = await report(page);
    for (;;) {
      await page.waitForTimeout(80);
      const now = await report(page);
      if (now.start === before.start && now.end === before.end) return now;
      before = now;
    }
  };
  /** The place on the page of a time in a rank's row. */
  const placeOf = async (page: Page, rank: number, time: number): Promise<[number, number]> => {
    const { start, end, rows } = await report(page);
    const box = await page.locator(".pipeline-cells").boundingBox();
    if (box === null) throw new Error("the timeline is not on the page");
    const width = box.width - GUTTER_PX;
    const { cellRow } = pipelineLayout(rows);
    const x = box.x + GUTTER_PX + ((time - start) / (end - start)) * width;
    return [x, box.y + AXIS_PX + (rank + 0.4) * cellRow];
  };
  const own = (name: BuiltInName, numRanks = 8, numMicroBatches = 20) => {
    const schedule = buildSchedule(name, { numRanks, numMicroBatches });
    const v = schedule.numStages / numRanks;
    return { schedule, result: simulate(schedule, { F: 1 / v, B: 2 / v, W: 1 / v }) };
  };

  it("tells the package's figures, and those of another schedule", async () => {
    await withPage("#/pipeline", async (page) => {
      await drawn(page);
      const first = own("dualpipe").result;
      expect(await figureOf(page, "Makespan")).toBe(formatTime(first.makespan));
      expect(await figureOf(page, "Idle")).toBe(`${(100 * first.bubbleShare).toFixed(1)} %`);
      expect(await figureOf(page, "By the formula")).toBe("66");
      expect(await figureOf(page, "Lower bound")).toBe(formatTime(first.lowerBound.makespan));
      expect(await figureOf(page, "Peak held")).toBe("9");
      await page.getByText(/^Valid:/).waitFor();
      await page
        .getByRole("img", { name: "Micro-batches each rank holds over time, 9 at most" })
        .waitFor();
      for (const name of ["zb1p", "zbv", "1f1b", "dualpipev"] as const) {
        await page.getByLabel("Schedule", { exact: true }).selectOption(name);
        const { result } = own(name);
        await expect.poll(() => figureOf(page, "Makespan")).toBe(formatTime(result.makespan));
        expect(await figureOf(page, "Peak held")).toBe(
          String(Math.max(...result.peak.activations)),
        );
      }
    });
  });

  it("compares all schedules, and a click chooses one", async () => {
    await withPage("#/pipeline", async (page) => {
      const table = page.getByRole("table", { name: "Schedules compared" });
      await table.getByRole("button", { name: "zbv" }).waitFor();
      const row = (name: string) =>
        table.locator("tr", { has: page.getByRole("button", { name, exact: true }) });
      const cells = await row("dualpipe").locator("td").allTextContents();
      expect(cells).toEqual(["66", "9.1 %", "2×", "9", "8", "(P/2 − 1)(FB + B − 3W)"]);
      expect(await row("interleaved-1f1b").locator("td").textContent()).toMatch(
        /^numMicroBatches is 20; expected a multiple of/,
      );
      expect(await row("dualpipe").getAttribute("aria-current")).toBe("true");
      await page.getByLabel("Ranks", { exact: true }).fill("7");
      await row("dualpipe").getByText("numRanks is 7; expected an even number").waitFor();
      const field = page.locator(".field", { has: page.getByLabel("Ranks", { exact: true }) });
      await field.getByText(/^numRanks is 7/).waitFor();
      await row("zb1p").getByRole("button").click();
      const { result } = own("zb1p", 7);
      await expect.poll(() => figureOf(page, "Makespan")).toBe(formatTime(result.makespan));
      expect(await page.getByLabel("Schedule", { exact: true }).inputValue()).toBe("zb1p");
      expect(await row("zb1p").getAttribute("aria-current")).toBe("true");
    });
  });

  it("tells what a cell is, and what it takes and gives", async () => {
    await withPage("#/pipeline", async (page) => {
      await drawn(page);
      await page.mouse.move(...(await placeOf(page, 3, 3.5)));
      await readout(page)
        .getByText(/^Rank 3\./)
        .waitFor();
      const text = (await readout(page).textContent()) ?? "";
      expect(text).toContain("Forward → of micro-batch 0, stage 3: 3 to 4, takes 1");
      expect(text).toContain("its rank waited 3 for it");
      expect(text).toContain("transfers: forward from rank 2 and to rank 4");
      // On the keys: the next cell, then the rank below.
      const timeline = page.getByRole("application", { name: /^Timeline/ });
      await page.mouse.move(5, 5);
      await timeline.focus();
      await page.keyboard.press(".");
      await page.keyboard.press("Escape");
      await page.keyboard.press(".");
      await readout(page)
        .getByText(/^Rank 0\./)
        .waitFor();
      await page.keyboard.press("ArrowDown");
      await readout(page)
        .getByText(/^Rank 1\./)
        .waitFor();
      const before = (await readout(page).textContent()) ?? "";
      await page.keyboard.press(".");
      await expect.poll(() => readout(page).textContent()).not.toBe(before);
      // Where nothing runs nothing is told.
      await page.mouse.move(...(await placeOf(page, 3, 1)));
      await readout(page)
        .getByText(/^Point at a cell/)
        .waitFor();
    });
  });

  it("draws the memory up to the peak, and what is above the limit", async () => {
    await withPage("#/pipeline/?limit=8", async (page) => {
      await drawn(page);
      const verdict = page.locator(".verdict");
      await verdict.getByText("Not valid: 8 violations").waitFor();
      const message = "rank 0: holds 9 micro-batches until their backward at once; the limit is 8";
      await verdict.getByText(message).waitFor();
      const plans = page.getByRole("table", { name: "Plans" });
      await plans
        .getByText("rank 0 holds 9 micro-batches of its share; the limit is 8")
        .first()
        .waitFor();
      // In the middle of rank 0's row: memory at half its height, the alert colour at its top.
      const { start, end } = await report(page);
      const width = Number(await page.evaluate("document.querySelector('.pipeline-memory').width"));
      const x = GUTTER_PX + ((30 - start) / (end - start)) * (width - GUTTER_PX);
      const [red = 0, , blue = 0] = await pixelOf(page, ".pipeline-memory", x, 20);
      expect(blue).toBeGreaterThan(red - 20);
      const [top = 0, , least = 0] = await pixelOf(page, ".pipeline-memory", x, 9);
      expect(top).toBeGreaterThan(least + 60);
      await page.getByLabel("Most held").fill("9");
      await page.getByText("within the memory limit").waitFor();
    });
  });

  it("zooms and moves with keys and wheel", async () => {
    await withPage(
      "#/pipeline",
      async (page) => {
        await drawn(page);
        const whole = await settled(page);
        await page.mouse.move(...(await placeOf(page, 2, 20)));
        await page.keyboard.press("w");
        const near = await settled(page);
        expect((near.end - near.start) / (whole.end - whole.start)).toBeCloseTo(0.7, 6);
        expect((20 - near.start) / (near.end - near.start)).toBeCloseTo(
          (20 - whole.start) / (whole.end - whole.start),
          2,
        );
        await page.keyboard.press("d");
        expect((await settled(page)).start).toBeGreaterThan(near.start);
        await page.keyboard.press("0");
        expect(await settled(page)).toMatchObject({ start: whole.start, end: whole.end });
        await page.keyboard.down("Control");
        await page.mouse.wheel(0, -240);
        await page.keyboard.up("Control");
        const wheeled = await settled(page);
        expect(wheeled.end - wheeled.start).toBeLessThan(whole.end - whole.start);
        // A letter in a field is a letter.
        await page.getByLabel("Forward F").press("w");
        expect(await settled(page)).toMatchObject({ start: wheeled.start, end: wheeled.end });
      },
      { reducedMotion: "reduce" },
    );
  });

  it("keeps its inputs in the address, and a link brings the same view", async () => {
    await withPage("#/pipeline", async (page, url) => {
      await drawn(page);
      await page.getByLabel("Preset").selectOption({ index: 5 });
      await expect.poll(() => page.evaluate("location.hash")).toContain("f=1+1+1+1+1+1+1+1.6");
      const makespan = await figureOf(page, "Makespan");
      const link = String(await page.evaluate("location.hash"));
      await page.getByRole("link", { name: "Engine" }).click();
      await page.locator(".engine-page").waitFor();
      await page.getByRole("link", { name: "Pipeline" }).click();
      await drawn(page);
      expect(await page.evaluate("location.hash")).toBe(link);
      const other = await page.context().newPage();
      await other.goto(url + link);
      await drawn(other);
      expect(await figureOf(other, "Makespan")).toBe(makespan);
      expect(await other.getByLabel("Backward B").inputValue()).toBe("2 2 2 2 2 2 2 3.2");
    });
  });

  it("refuses bad times beside their field, and recovers", async () => {
    await withPage("#/pipeline/?f=x", async (page) => {
      const field = (label: string) =>
        page.locator(".field", { has: page.getByLabel(label, { exact: true }) });
      await field("Forward F")
        .getByText("times.F is NaN; expected a finite number from 0")
        .waitFor();
      await page.getByLabel("Forward F").fill("1 2 3");
      await field("Forward F").getByText("expected 1, or 8: one for each rank's share").waitFor();
      await page.getByLabel("Forward F").fill("1");
      await drawn(page);
      await page.getByLabel("of it, weights W").fill("5");
      await field("of it, weights W").locator(".field-problem").waitFor();
      await page.getByLabel("of it, weights W").fill("1");
      await page.getByLabel("Micro-batches", { exact: true }).fill("13");
      await field("Micro-batches").locator(".field-problem").waitFor();
      await page.getByLabel("Take any number of micro-batches").check();
      await field("Micro-batches").locator(".field-problem").waitFor({ state: "detached" });
      expect(await page.locator(".bench-results").getAttribute("data-stale")).toBe("false");
    });
  });

  it("offers a command, a picture and a trace of the same run", async () => {
    await withPage("#/pipeline/?schedule=zbv&fb=2.5&latency=0.25", async (page) => {
      await drawn(page);
      const makespan = await figureOf(page, "Makespan");
      const card = page.getByRole("region", { name: "Take it along" });
      const command = (await card.locator("code").textContent()) ?? "";
      const printed = JSON.parse(await runCommand(command, folder));
      expect(formatTime(printed.makespan)).toBe(makespan);
      const svg = readFileSync(await (await saved(page, "Save as SVG")).path(), "utf8");
      expect(svg).toMatch(/^<svg .*zbv, 8 ranks, 20 micro-batches/s);
      const download = await saved(page, "Save as Chrome trace");
      expect(download.suggestedFilename()).toBe("zbv-8-ranks-20-micro-batches.json");
      const trace = JSON.parse(readFileSync(await download.path(), "utf8"));
      const spans = trace.traceEvents.filter((event: { ph: string }) => event.ph === "X");
      expect(spans).toHaveLength(printed.numOperations);
      await page.getByRole("button", { name: "Open in the trace page" }).click();
      await page.locator(".timeline-lanes canvas[data-frames]").waitFor();
      await page.getByText("zbv-8-ranks-20-micro-batches.json").first().waitFor();
    });
  });

  it("tells idle time by rank and phase in a table", async () => {
    await withPage("#/pipeline", async (page) => {
      await drawn(page);
      await page.getByText("Ranks as a table").click();
      const { result } = own("dualpipe");
      const cells = page.locator(".ranks-scroll tbody tr").nth(3).locator("td");
      const idle = result.idleOf[3];
      expect(await cells.allTextContents()).toEqual([
        formatTime(result.busy[3] as number),
        formatTime(idle?.total as number),
        `${((100 * (idle?.total as number)) / result.makespan).toFixed(1)} %`,
        formatTime(idle?.warmUp as number),
        formatTime(idle?.steady as number),
        formatTime(idle?.coolDown as number),
        ...(idle?.byPhase.slice(1).map(formatTime) ?? []),
        formatTime(idle?.afterEnd as number),
        "9",
        String(result.peak.activationsUntilW[3]),
      ]);
    });
  });

  it("draws at most a rectangle a column and row of 64 ranks × 512 micro-batches", async () => {
    await withPage("#/pipeline/?ranks=64&microBatches=512", async (page) => {
      await drawn(page);
      expect(await figureOf(page, "Operations")).toBe("40,898");
      const worst = await page.evaluate(`(async () => {
        const canvas = document.querySelector(".pipeline-cells");
        const press = (type, key) => dispatchEvent(new KeyboardEvent(type, { key }));
        let worst = 0;
        for (const key of ["w", "d", "s", "w", "a"]) {
          press("keydown", key);
          const end = performance.now() + 250;
          while (performance.now() < end) {
            await new Promise(requestAnimationFrame);
            const { rectangles, rows } = canvas.dataset;
            worst = Math.max(worst, rectangles / (rows * canvas.width));
          }
          press("keyup", key);
        }
        return worst;
      })()`);
      expect(worst).toBeGreaterThan(0);
      expect(worst).toBeLessThanOrEqual(1.05);
      expect((await settled(page)).frames).toBeGreaterThan(10);
    });
  });

  it.each(["light", "dark"] as const)("is drawn in the %s scheme", async (colorScheme) => {
    await withPage(
      "#/pipeline/?fb=2.5",
      async (page) => {
        await drawn(page);
        await page.getByRole("table", { name: "Plans" }).locator("tbody tr").first().waitFor();
        const [red = 0] = await pixelOf(page, ".pipeline-cells", 4, 4);
        expect(red > 128).toBe(colorScheme === "light");
        const before = (await report(page)).frames;
        await page.getByLabel("Critical path").check();
        await expect.poll(async () => (await report(page)).frames).toBeGreaterThan(before);
        await page.mouse.move(...(await placeOf(page, 4, 26)));
        await readout(page)
          .getByText(/^Rank 4\./)
          .waitFor();
        await screenshot(page, colorScheme === "dark" ? "pipeline-dark" : "pipeline");
      },
      { colorScheme },
    );
  });

  it("fits a narrow screen", async () => {
    await withPage(
      "#/pipeline",
      async (page) => {
        await drawn(page);
        const overflow = await page.evaluate(
          "document.querySelector('main').scrollWidth - document.querySelector('main').clientWidth",
        );
        expect(overflow).toBe(0);
      },
      { viewport: { width: 390, height: 800 } },
    );
  });
});
