// The jobs page in headless Chromium, beside `open-infra smallpond console`: a job that is over,
// one that grows, switching between them, what failed. Any complaint of the browser fails a test.

import { mkdtempSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { hasProgram, requirement } from "@open-infra/testing";
import type { Browser, BrowserContextOptions, Page } from "playwright-core";
import { afterAll, beforeAll, describe, expect, it } from "vitest";
import { buildConsole } from "../build.ts";
import { CHROMIUM_MISSING, launchChromium, openPage } from "./helpers/browser.ts";
import { figureOf, pixelOf, screenshot, withConsolePage } from "./helpers/console-page.ts";
import { finishedJob, JobLog, startJobsConsole, stepsOfTest } from "./helpers/job-logs.ts";

const skip = requirement("jobs page in Chromium", hasProgram("chromium") || CHROMIUM_MISSING);
const tasks = 18;

describe.skipIf(skip)("the jobs page", () => {
  let browser: Browser;
  let dir: string;
  let folder: string;
  let served: Awaited<ReturnType<typeof startJobsConsole>>;

  beforeAll(async () => {
    folder = mkdtempSync(join(tmpdir(), "open-infra-jobs-page-"));
    const nowMs = Date.now();
    finishedJob(folder, "nightly", nowMs - 60_000, tasks);
    finishedJob(folder, "weekly", nowMs - 90_000_000, 3);
    [{ dir }, browser] = await Promise.all([buildConsole({ ifStale: true }), launchChromium()]);
    served = await startJobsConsole(folder);
  }, 60_000);

  afterAll(async () => {
    await served?.[Symbol.asyncDispose]();
    await browser?.close();
    rmSync(folder, { recursive: true, force: true });
  });

  async function withJob(
    job: string,
    test: (page: Page) => Promise<void>,
    options: BrowserContextOptions = {},
  ): Promise<void> {
    const viewport = { width: 1440, height: 1000 };
    const { page, complaints } = await openPage(browser, { viewport, ...options });
    try {
      await page.goto(`${served.url}&job=${job}`);
      await page.locator(".jobs-timeline[data-bars]").waitFor();
      await test(page);
      expect(complaints).toEqual([]);
    } finally {
      await page.context().close();
    }
  }

  const bars = async (page: Page): Promise<number> =>
    Number(await page.locator(".jobs-timeline").getAttribute("data-bars"));
  const card = (page: Page, name: string) => page.getByRole("region", { name, exact: true });

  it("tells how far a job is, what its steps took, and where they ran", async () => {
    await withJob("nightly", async (page) => {
      expect(await figureOf(page, "Tasks")).toBe(`${2 * tasks}`);
      expect(await figureOf(page, "Retries")).toBe("1");
      expect(await figureOf(page, "Failed")).toBe("1");
      expect(await bars(page)).toBe(2 * tasks + 2);
      const row = card(page, "Steps").locator("tbody tr", { hasText: "partition#1" });
      const cells = await row.locator("td").allTextContents();
      expect(cells.slice(0, 3)).toEqual([`${tasks}/${tasks}`, "0", "0"]);
      expect(cells[6]).toBe("18,000");
      const executors = card(page, "Executors").locator("tbody tr");
      expect(await executors.count()).toBe(3);
      expect(await executors.first().locator("td").allTextContents()).toEqual(
        expect.arrayContaining(["left", "2", "12"]),
      );
    });
  });

  it("draws the plan, whose steps tell themselves to pointer and keyboard", async () => {
    await withJob("nightly", async (page) => {
      const steps = card(page, "Plan").getByRole("treeitem");
      expect(await steps.count()).toBe(4);
      const join = steps.filter({ hasText: "join#3" });
      expect(await join.getAttribute("data-state")).toBe("failed");
      expect(await join.getAttribute("aria-label")).toBe("join#3, failed, 18/18  18,000 rows");
      const readout = card(page, "Plan").locator(".jobs-readout");
      await steps.filter({ hasText: "partition#1" }).hover();
      await readout.getByText("partition#1 at nightly.ts:4: by hash(ticker)").waitFor();
      await steps.first().focus();
      for (let i = 0; i < 3; i++) await page.keyboard.press("Tab");
      await readout
        .getByText(/^join#3 at nightly\.ts:9: SELECT ticker, .* GROUP BY ALL$/)
        .waitFor();
    });
  });

  it("tells the attempt under the pointer, and what failed", async () => {
    await withJob("nightly", async (page) => {
      const canvas = page.locator(".jobs-timeline");
      const box = await canvas.boundingBox();
      if (box === null) throw new Error("the timeline is not on the page");
      const readout = card(page, "Tasks over time").locator(".jobs-readout");
      // Somewhere on the first lane there is a bar.
      const seen = new Set<string>();
      for (let x = 100; x < box.width; x += 40) {
        await page.mouse.move(box.x + x, box.y + 22 + 4);
        seen.add((await readout.textContent()) ?? "");
      }
      expect(
        [...seen].filter((text) => / on local-0: finished, \d+ ms, 1,000 rows$/.test(text)).length,
      ).toBeGreaterThan(5);
      await page.mouse.move(box.x + 20, box.y - 40);
      await expect.poll(async () => (await readout.textContent())?.trim()).toBe("");
      const failures = card(page, "Failures");
      await failures.getByText("Failed: join#3 bad0bad0 on local-1").waitFor();
      await failures.getByText("out of memory: 2 GiB used").waitFor();
      expect(await failures.getByText("out of memory: 1 GiB used").isVisible()).toBe(false);
      await failures.getByText("Tried again: join#3").click();
      await failures.getByText("out of memory: 1 GiB used").waitFor();
    });
  });

  it("follows a job as it grows, to its end", async () => {
    const log = new JobLog(folder, "growing");
    const nowMs = Date.now();
    log.job("running", nowMs - 5_000);
    log.executor("local-0", nowMs - 4_900);
    log.write({ type: "action", atMs: nowMs - 4_800, steps: stepsOfTest(2) });
    const task = { key: "k0", node: "partition#1", attempt: 0, executor: "local-0" };
    log.started(task, nowMs - 4_000);
    await withJob("growing", async (page) => {
      expect(await figureOf(page, "Running")).toBe("1");
      const step = card(page, "Plan").getByRole("treeitem").filter({ hasText: "partition#1" });
      expect(await step.getAttribute("data-state")).toBe("running");
      log.finished(task, nowMs, 4_000);
      log.started({ ...task, key: "k1" }, nowMs);
      await expect.poll(() => figureOf(page, "Tasks")).toBe("1");
      await expect.poll(() => bars(page)).toBe(2);
      log.finished({ ...task, key: "k1" }, nowMs + 100, 100);
      log.job("ended", nowMs + 200);
      await expect.poll(() => figureOf(page, "Tasks")).toBe("2");
      await expect.poll(() => step.getAttribute("data-state")).toBe("done");
      const entry = page.getByRole("navigation", { name: "Jobs" }).getByText("growing");
      await entry.waitFor();
      await page.locator('.jobs-list [data-state="ended"]').first().waitFor();
    });
  });

  it("shows another job of the list", async () => {
    await withJob("nightly", async (page) => {
      const list = page.getByRole("navigation", { name: "Jobs" });
      await list.getByRole("button", { name: "weekly" }).click();
      await expect.poll(() => bars(page)).toBe(8);
      const current = list.locator('[aria-current="true"] strong');
      expect(await current.textContent()).toBe("weekly");
    });
  });

  it("says how to start it where a server has no jobs", async () => {
    await withConsolePage({ browser, dir }, "#/jobs", async (page) => {
      await page.getByText("open-infra smallpond console --open").waitFor();
    });
  });

  it.each(["light", "dark"] as const)("is drawn in the %s scheme", async (colorScheme) => {
    await withJob(
      "nightly",
      async (page) => {
        const corner = async (): Promise<number> =>
          (await pixelOf(page, ".jobs-timeline", 4, 4))[0] ?? 0;
        await expect.poll(corner).toBeGreaterThan(0);
        expect((await corner()) > 128).toBe(colorScheme === "light");
        await screenshot(page, colorScheme === "dark" ? "jobs-dark" : "jobs");
      },
      { colorScheme },
    );
  });

  it("fits a narrow screen", async () => {
    const viewport = { width: 390, height: 800 };
    await withJob(
      "nightly",
      async (page) => {
        const overflow = await page.evaluate(
          "document.querySelector('main').scrollWidth - document.querySelector('main').clientWidth",
        );
        expect(overflow).toBe(0);
        await screenshot(page, "jobs-narrow");
      },
      { viewport },
    );
  });
});
