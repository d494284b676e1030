// The experts page in headless Chromium: its figures are those of the package, a cell tells what it
// holds, files and links bring the same view, the command gives the same placement, bad input is
// told beside its field. Any complaint of the browser fails a test.

import { mkdtempSync, readFileSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import {
  type BalanceReport,
  measurePlacement,
  placementFrom,
  rebalanceExperts,
} from "@open-infra/eplb";
import { hasProgram, requirement } from "@open-infra/testing";
import type { Browser, BrowserContextOptions, Page } from "playwright-core";
import { afterAll, beforeAll, describe, expect, it } from "vitest";
import { buildConsole } from "../build.ts";
import { loadsOf, place } from "../web/src/pages/experts/compute.ts";
import {
  defaults,
  type ExpertsValues,
  exampleLoads,
  placeRequest,
} from "../web/src/pages/experts/inputs.ts";
import { CHROMIUM_MISSING, launchChromium } from "./helpers/browser.ts";
import {
  dropFile,
  figureOf,
  pixelOf,
  runCommand,
  saved,
  screenshot,
  withConsolePage,
} from "./helpers/console-page.ts";

const skip = requirement("experts page in Chromium", hasProgram("chromium") || CHROMIUM_MISSING);
const cluster = { numReplicas: 16, numGroups: 4, numNodes: 2, numGpus: 8 };
const exampleLink = "#/experts/?layers=2&experts=12&replicas=16&groups=4&nodes=2&gpus=8";

describe.skipIf(skip)("the experts page", () => {
  let browser: Browser;
  let dir: string;
  let folder: string;

  beforeAll(async () => {
    folder = mkdtempSync(join(tmpdir(), "open-infra-experts-page-"));
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

  /** Waits until no worker is at it, then until the page tells this placement. */
  const tells = async (page: Page, report: BalanceReport): Promise<void> => {
    await page.locator(".bench-results[data-busy=false] .heat").waitFor();
    await expect.poll(() => figureOf(page, "Max ÷ mean")).toBe(report.meanMaxOverMean.toFixed(4));
    expect(await figureOf(page, "Worst layer")).toBe(report.worstMaxOverMean.toFixed(4));
    const balancedness = `${(100 * report.balancedness).toFixed(1)} %`;
    expect(await figureOf(page, "Balancedness")).toBe(balancedness);
    expect(await figureOf(page, "Duplicates")).toBe(String(report.duplicates));
  };
  const expected = (values: Partial<ExpertsValues> = {}) =>
    place(placeRequest({ ...defaults, ...values }, null, null));
  const readout = (page: Page) => page.locator(".heat-readout");

  it("places 58 layers and tells the package's figures", async () => {
    await withPage("#/experts", async (page) => {
      const { before, after } = expected();
      await tells(page, after.report);
      expect(await figureOf(page, "Moved slots")).toBe(
        after.report.movedSlots.toLocaleString("en-US"),
      );
      const was = page.locator(".bench-figures .unit").first();
      expect((await was.textContent())?.trim()).toBe(
        `was ${before.report.meanMaxOverMean.toFixed(4)}`,
      );
      await page.getByLabel("Policy", { exact: true }).selectOption("optimized-global");
      const optimized = expected({ policy: "optimized-global" }).after.report;
      await tells(page, optimized);
      expect(optimized.meanMaxOverMean).toBeLessThan(after.report.meanMaxOverMean);
      await page.getByText("All layers as a table").click();
      const row = page.locator(".layers-scroll tbody tr").nth(7);
      expect(await row.locator("td").nth(1).textContent()).toBe(
        optimized.layers[7]?.maxOverMean.toFixed(4),
      );
    });
  });

  it("tells what a cell holds, to the pointer and to the keys", async () => {
    await withPage(exampleLink, async (page) => {
      await page.getByLabel("Preset").selectOption({ index: 5 });
      const original = rebalanceExperts(exampleLoads, cluster);
      await tells(page, original.report);
      const after = page.getByRole("application", { name: /^After/ });
      const box = await after.boundingBox();
      if (box === null) throw new Error("the heat map is not on the page");
      // Layer 0, the last GPU.
      await page.mouse.move(box.x + box.width - 10, box.y + 30);
      await readout(page).getByText("Layer 0, GPU 7").waitFor();
      const text = (await readout(page).textContent()) ?? "";
      expect(text).toContain("node 1");
      const load = original.report.layers[0]?.gpuLoads[7] as number;
      expect(text).toContain(`${Math.round(load).toLocaleString("en-US")} = `);
      expect(text).toContain("experts 11 moved here, 1 (1 of 2) moved here");
      await page.mouse.move(5, 5);
      await after.focus();
      await page.keyboard.press("ArrowDown");
      await page.keyboard.press("ArrowDown");
      await page.keyboard.press("ArrowRight");
      await readout(page).getByText("Layer 1, GPU 1").waitFor();
      await page.keyboard.press("Enter");
      await page.getByRole("heading", { name: "Layer 1: slots of each GPU" }).waitFor();
      await page.getByText("Layer 1 as a table").click();
      const held = page.locator("section[aria-label=Layer] tbody tr").first().locator(".why");
      expect(await held.textContent()).toContain(`${original.phy2log[16]}`);
    });
  });

  it("reads a dropped file, and a placement to start from", async () => {
    await withPage("#/experts", async (page) => {
      await page.locator(".heat").waitFor();
      for (const [label, text] of Object.entries({ GPUs: "8", Nodes: "2", "Expert groups": "4" })) {
        await page.getByLabel(label, { exact: true }).fill(text);
      }
      await page.getByLabel("Slots a layer").fill("16");
      await dropFile(page, "w.json", JSON.stringify({ weight: exampleLoads }));
      await page.getByText("From w.json").waitFor();
      const original = rebalanceExperts(exampleLoads, cluster);
      await tells(page, original.report);
      // What the page saves is what it reads, and migration from there moves nothing.
      const path = join(folder, "old.json");
      await (await saved(page, "Save the placement")).saveAs(path);
      await page.locator("input[type=file]").last().setInputFiles(path);
      await page.getByText("From old.json.").waitFor();
      await page.getByLabel("Policy", { exact: true }).selectOption("minimal-migration");
      const migrated = rebalanceExperts(exampleLoads, {
        ...cluster,
        policy: "minimal-migration",
        from: original,
      });
      await tells(page, migrated.report);
      expect(await figureOf(page, "Moved slots")).toBe(String(migrated.report.movedSlots));
      await dropFile(page, "bad.json", '{"weight": [[1, 2, -3]]}');
      await page.getByRole("alert").filter({ hasText: "weight[0][2] is -3" }).waitFor();
      await dropFile(page, "words.json", "no numbers");
      await page.getByRole("alert").filter({ hasText: "words.json is not JSON" }).waitFor();
      await page.getByRole("button", { name: "Make them up instead" }).click();
      await page.getByLabel("Seed").waitFor();
    });
  });

  it("puts the package's sentence beside the field, and recovers", async () => {
    await withPage(exampleLink, async (page) => {
      await page.locator(".heat").waitFor();
      await page.getByLabel("Slots a layer").fill("17");
      const sentence = "numReplicas is 17; expected a multiple of numGpus 8 (17 % 8 = 1)";
      const field = page.locator(".field", { has: page.getByLabel("Slots a layer") });
      await field.getByText(sentence).waitFor();
      expect(await page.getByLabel("Slots a layer").getAttribute("aria-invalid")).toBe("true");
      expect(await page.locator(".heat").count()).toBe(1);
      await page.getByLabel("Slots a layer").fill("24");
      await field.getByText(sentence).waitFor({ state: "detached" });
      expect(await page.locator(".bench-results").getAttribute("data-stale")).toBe("false");
      for (const text of ["", "many", "-8", "1e99", "0"]) {
        await page.getByLabel("GPUs", { exact: true }).fill(text);
        await page.locator(".field-problem").first().waitFor();
      }
    });
  });

  it("keeps its inputs in the address, and a link brings the same view", async () => {
    await withPage("#/experts", async (page, url) => {
      await page.locator(".heat").waitFor();
      await page.getByLabel("Preset").selectOption({ index: 4 });
      await page.getByLabel("Policy", { exact: true }).selectOption("minimal-migration");
      await page.getByLabel("Most moved").fill("40");
      await page.locator(".bench-results[data-busy=false]").waitFor();
      const values = { layers: "26", experts: "64", replicas: "80", nodes: "2", gpus: "16" };
      const policy = { policy: "minimal-migration", before: "drifted", budget: "40" };
      const { report } = expected({ ...values, ...policy }).after;
      await tells(page, report);
      const link = await page.evaluate("location.hash");
      expect(link).toContain("budget=40");
      await page.getByRole("link", { name: "Engine" }).click();
      await page.locator(".engine-page").waitFor();
      await page.getByRole("link", { name: "Experts" }).click();
      await tells(page, report);
      expect(await page.evaluate("location.hash")).toBe(link);
      const other = await page.context().newPage();
      await other.goto(url + String(link));
      await tells(other, report);
      expect(await other.getByLabel("Most moved").inputValue()).toBe("40");
      // The same address again, after the form has changed, sets the form back.
      await other.getByLabel("Most moved").fill("1");
      await other.evaluate(`location.hash = ${JSON.stringify(link)}`);
      await expect.poll(() => other.getByLabel("Most moved").inputValue()).toBe("40");
    });
  });

  it("offers a command that gives the same placement", async () => {
    await withPage("#/experts/?layers=4&policy=minimal-migration&before=drifted", async (page) => {
      await page.locator(".bench-results[data-busy=false] .heat").waitFor();
      for (const [button, name] of [
        ["Save the loads", "loads.json"],
        ["Save the placement before", "before.json"],
      ] as const) {
        const download = await saved(page, button);
        expect(download.suggestedFilename()).toBe(name);
        await download.saveAs(join(folder, name));
      }
      const result = await saved(page, "Save the placement");
      const path = join(folder, "placement.json");
      await result.saveAs(path);
      const card = page.getByRole("region", { name: "Take it along" });
      const command = (await card.locator("code").textContent()) ?? "";
      const printed = JSON.parse(await runCommand(command, folder));
      expect(JSON.parse(readFileSync(path, "utf8"))).toEqual(printed);
    });
  });

  it("replays a load through the controller, as the command does", async () => {
    await withPage("#/experts/?steps=400&interval=50&scenario=shift&layers=2", async (page) => {
      const online = page.getByRole("region", { name: "Online" });
      await online.getByRole("img", { name: /^Max ÷ mean load/ }).waitFor();
      const rows = online.locator("tbody").first().locator("tr");
      const told = await rows.evaluateAll((list) => list.map((row) => row.textContent));
      const command = (await online.locator("code").textContent()) ?? "";
      const printed = JSON.parse(await runCommand(`${command} --json`, folder));
      const arms = ["fixed", "fresh", "controller"] as const;
      arms.forEach((arm, index) => {
        const { maxOverMean, movedSlots } = printed[arm];
        expect(told[index]).toContain(maxOverMean.toFixed(3));
        expect(told[index]).toContain(movedSlots.toLocaleString("en-US"));
      });
      await online.getByLabel("Interval").fill("0");
      await online.locator(".field-problem").first().waitFor();
    });
  });

  it("answers while it computes, and the newest question wins", async () => {
    await withPage("#/experts", async (page) => {
      await page.locator(".heat").waitFor();
      for (const policy of ["optimized-global", "optimized", "deepseek-global", "optimized"]) {
        await page.getByLabel("Policy", { exact: true }).selectOption(policy);
      }
      await page.getByLabel("Seed").fill("5");
      await tells(page, expected({ policy: "optimized", seed: "5" }).after.report);
    });
  });

  it("takes pasted loads", async () => {
    await withPage(exampleLink, async (page) => {
      await page.getByText("Paste JSON").click();
      const [, second = []] = exampleLoads;
      await page.getByLabel("JSON of loads or of a placement").fill(JSON.stringify(second));
      await page.getByRole("button", { name: "Use it" }).click();
      const placed = rebalanceExperts([second], cluster);
      await tells(page, placed.report);
      const order = placementFrom([Array.from({ length: 16 }, (_, i) => i % 12)], 12);
      const was = measurePlacement([second], order, cluster).meanMaxOverMean.toFixed(4);
      expect(await page.locator(".bench-figures .unit").first().textContent()).toContain(was);
    });
  });

  it.each(["light", "dark"] as const)("is drawn in the %s scheme", async (colorScheme) => {
    await withPage(
      "#/experts",
      async (page) => {
        await page.locator(".bench-results[data-busy=false] .heat").waitFor();
        await page.locator(".online-chart").waitFor();
        const [red = 0] = await pixelOf(page, ".heat-map canvas", 2, 200);
        expect(red > 128).toBe(colorScheme === "light");
        // The fullest cell before is warm: more red than blue, in both schemes.
        const { before } = expected();
        const layer = before.report.layers.findIndex(
          ({ maxOverMean }) => maxOverMean === before.report.worstMaxOverMean,
        );
        const balance = before.report.layers[layer];
        const gpu = balance?.gpuLoads.indexOf(balance.maxLoad) ?? 0;
        const spot = await page.evaluate(`(() => {
          const { width, height } = document.querySelector(".heat-map canvas");
          return [width, height];
        })()`);
        const [width = 0, height = 0] = spot as number[];
        const x = 30 + ((width - 32) * (gpu + 0.5)) / 32;
        const y = 18 + ((height - 20) * (layer + 0.5)) / 58;
        const [warm = 0, , cold = 0] = await pixelOf(page, ".heat-map canvas", x, y);
        expect(warm).toBeGreaterThan(cold + 40);
        await page.mouse.move(5, 5);
        await screenshot(page, colorScheme === "dark" ? "experts-dark" : "experts");
      },
      { colorScheme },
    );
  });

  it("fits a narrow screen", async () => {
    await withPage(
      "#/experts",
      async (page) => {
        await page.locator(".heat").waitFor();
        expect(loadsOf(placeRequest(defaults, null, null).loads)).toHaveLength(58);
        const overflow = await page.evaluate(
          "document.querySelector('main').scrollWidth - document.querySelector('main').clientWidth",
        );
        expect(overflow).toBe(0);
      },
      { viewport: { width: 390, height: 800 } },
    );
  });
});
