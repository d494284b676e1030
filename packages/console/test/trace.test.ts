// The trace page in headless Chromium: every way to open a trace, what it then says, keys and
// pointer, and how much a frame draws of a million events. Serves the built app under its content
// policy; any complaint of the browser fails a test.

import { mkdirSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { dirname, join } from "node:path";
import { gzipSync } from "node:zlib";
import { analyzeTrace, readTrace } from "@open-infra/profile/analyze";
import { hasProgram, requirement, testSeed } from "@open-infra/testing";
import type { Browser, BrowserContextOptions, Page } from "playwright-core";
import { afterAll, beforeAll, describe, expect, it } from "vitest";
import { buildConsole } from "../build.ts";
import { CHROMIUM_MISSING, launchChromium, openPage } from "./helpers/browser.ts";
import { sampleStats } from "./helpers/sample-stats.ts";
import { ScriptedServer } from "./helpers/scripted-server.ts";
import { knownFigures, knownTrace, writeLargeTrace } from "./helpers/trace-files.ts";

const skip = requirement("trace page in Chromium", hasProgram("chromium") || CHROMIUM_MISSING);

/** Numbers that the canvas tells of its last frame. */
interface FrameReport {
  readonly rectangles: number;
  readonly rows: number;
  readonly labels: number;
  readonly arrows: number;
  readonly frames: number;
  readonly startUs: number;
  readonly endUs: number;
}

describe.skipIf(skip)("the trace page", () => {
  let browser: Browser;
  let dir: string;
  let folder: string;
  const knownText = JSON.stringify(knownTrace());

  beforeAll(async () => {
    folder = mkdtempSync(join(tmpdir(), "open-infra-trace-page-"));
    [{ dir }, browser] = await Promise.all([buildConsole({ ifStale: true }), launchChromium()]);
  });

  afterAll(async () => {
    await browser?.close();
    rmSync(folder, { recursive: true, force: true });
  });

  const write = (name: string, content: string | Uint8Array): string => {
    const path = join(folder, name);
    writeFileSync(path, content);
    return path;
  };

  /** Opens the page, runs the test, and expects no complaint. */
  async function withPage(
    test: (page: Page, server: ScriptedServer) => Promise<void>,
    options: BrowserContextOptions = {},
    address = "#/trace",
  ): Promise<void> {
    await using server = await ScriptedServer.start(dir, {
      models: ["demo"],
      stats: () => sampleStats(),
      statsIntervalMs: 1000,
      complete: () => undefined,
      files: { "/traces/known.json": Buffer.from(knownText) },
    });
    const { page, complaints } = await openPage(browser, {
      viewport: { width: 1440, height: 900 },
      ...options,
    });
    try {
      await page.goto(server.url + address);
      await test(page, server);
      expect(complaints).toEqual([]);
    } finally {
      await page.context().close();
    }
  }

  const canvas = (page: Page) => page.locator(".timeline-lanes canvas");
  const fact = (page: Page, name: string) =>
    page.locator(".facts div", { has: page.getByText(name, { exact: true }) }).locator("dd");
  const figure = (page: Page, name: string) =>
    page
      .locator(".trace-figures div", { has: page.getByText(name, { exact: true }) })
      .locator("dd");
  const report = async (page: Page): Promise<FrameReport> => {
    const data = await page.evaluate(
      `({ ...document.querySelector(".timeline-lanes canvas").dataset })`,
    );
    const entries = Object.entries(data as Record<string, string>);
    return Object.fromEntries(entries.map(([name, text]) => [name, Number(text)])) as never;
  };
  const drawn = async (page: Page): Promise<void> => {
    await page.locator(".timeline-lanes canvas[data-frames]").waitFor();
  };
  const openFile = async (page: Page, path: string): Promise<void> => {
    await page.locator("input[type=file]").setInputFiles(path);
    await drawn(page);
  };
  /** Waits until the view stands still. */
  const settled = async (page: Page): Promise<FrameReport> => {
    let before = await report(page);
    for (;;) {
      await page.waitForTimeout(80);
      const now = await report(page);
      if (now.startUs === before.startUs && now.endUs === before.endUs) return now;
      before = now;
    }
  };
  /** The place on the page of a time in the row whose top is at `y` of the lanes. */
  const placeOf = async (page: Page, timeUs: number, y: number): Promise<[number, number]> => {
    const { startUs, endUs } = await report(page);
    const box = await canvas(page).boundingBox();
    if (box === null) throw new Error("the lanes are not on the page");
    return [box.x + ((timeUs - startUs) / (endUs - startUs)) * box.width, box.y + y];
  };
  /** Rows of the known trace, CSS pixels from the top: two streams, then a thread. */
  const stream7 = 35;
  const stream27 = 61;

  it("opens a chosen file and tells its figures", async () => {
    await withPage(async (page) => {
      await openFile(page, write("known.json", knownText));
      expect(await figure(page, "Trace").textContent()).toBe("known.json");
      expect(await figure(page, "Events").textContent()).toBe("12");
      expect(await figure(page, "Span").textContent()).toBe("300.0 µs");
      expect(await figure(page, "Busy").textContent()).toBe("90.0 %");
      expect(await figure(page, "Communication hidden").textContent()).toBe("41.7 %");
      expect(await figure(page, "Exposed").textContent()).toBe("70 µs");
      const lanes = await page.locator(".lane-name").allTextContents();
      expect(lanes).toEqual([
        "python3 0",
        "stream 7",
        "stream 27",
        "host process 9",
        "main thread",
        "queuemax 3",
      ]);
      await page.getByRole("application", { name: /Timeline of known\.json/ }).waitFor();
      await page.getByRole("img", { name: "8 slices in 3 lanes over 350.0 µs" }).waitFor();
    });
  });

  it("opens gzip, and a file that is dropped anywhere", async () => {
    await withPage(async (page) => {
      await openFile(page, write("known.json.gz", gzipSync(knownText)));
      expect(await figure(page, "Exposed").textContent()).toBe("70 µs");
      const dropped = JSON.stringify([{ ph: "X", pid: 1, tid: 1, ts: 1, dur: 2000, name: "only" }]);
      // An event as the browser makes it when a file is let go over the window.
      await page.evaluate(`{
        const data = new DataTransfer();
        data.items.add(new File([${JSON.stringify(dropped)}], "dropped.json"));
        const options = { dataTransfer: data, bubbles: true, cancelable: true };
        document.body.dispatchEvent(new DragEvent("dragover", options));
        document.body.dispatchEvent(new DragEvent("drop", options));
      }`);
      await figure(page, "Trace").getByText("dropped.json").waitFor();
      expect(await figure(page, "Span").textContent()).toBe("2.000 ms");
      expect(await figure(page, "Exposed").textContent()).toBe("–");
    });
  });

  it("says what is wrong with a file, and opens the next one", async () => {
    await withPage(async (page) => {
      const refused = async (name: string, content: string | Uint8Array): Promise<string> => {
        await page.locator("input[type=file]").setInputFiles(write(name, content));
        const alert = page.getByRole("alert").filter({ hasText: name });
        await alert.waitFor();
        return (await alert.textContent()) ?? "";
      };
      expect(await refused("words.json", "not a trace")).toMatch(/byte 0/);
      expect(await refused("cut.json", knownText.slice(0, 1400))).toMatch(/ends|end/);
      // What there is of it can be had all the same, with a note.
      await page.getByRole("button", { name: "Open what can be read" }).click();
      await drawn(page);
      await page.locator(".trace-notes").getByText("reading stopped").waitFor();
      const packed = gzipSync(knownText);
      expect(await refused("cut.gz", packed.subarray(0, packed.length / 2))).toMatch(/gzip|end/);
      expect(await refused("empty.json", '{"traceEvents":[]}')).toContain("without events");
      expect(await refused("none.json", "")).not.toBe("");
      await openFile(page, write("good.json", knownText));
      expect(await page.getByRole("alert").count()).toBe(0);
    });
  });

  it("opens the example, keeps it while another page is shown, and saves it", async () => {
    await withPage(async (page) => {
      await page.getByRole("button", { name: "Open the example" }).click();
      await drawn(page);
      const hidden = await figure(page, "Communication hidden").textContent();
      expect(hidden).toMatch(/^\d\d\.\d %$/);
      await page.getByRole("link", { name: "Engine" }).click();
      await page.locator(".engine-page").waitFor();
      await page.getByRole("link", { name: "Trace" }).click();
      await drawn(page);
      const [download] = await Promise.all([
        page.waitForEvent("download"),
        page.getByRole("button", { name: "Open in Perfetto" }).click(),
      ]);
      expect(download.suggestedFilename()).toBe("dualpipe-example.json");
      const saved = readFileSync(await download.path(), "utf8");
      const { summary } = analyzeTrace(await readTrace(saved));
      expect(`${summary.overlapPercent.toFixed(1)} %`).toBe(hidden);
      await page.getByRole("status").getByText("ui.perfetto.dev").waitFor();
    });
  });

  it("opens an address of this server, and no other", async () => {
    const known = encodeURIComponent("/traces/known.json");
    await withPage(
      async (page) => {
        await drawn(page);
        expect(await figure(page, "Trace").textContent()).toBe("known.json");
        const [download] = await Promise.all([
          page.waitForEvent("download"),
          page.getByRole("button", { name: "Open in Perfetto" }).click(),
        ]);
        expect(readFileSync(await download.path(), "utf8")).toBe(knownText);
        await page.evaluate(`location.hash = "#/trace/?url=/traces/none.json"`);
        await page.getByRole("alert").getByText("the server answers 404").waitFor();
        const elsewhere = encodeURIComponent("http://127.0.0.1:9/x.json");
        await page.evaluate(`location.hash = "#/trace/?url=${elsewhere}"`);
        await page.getByRole("alert").getByText("another origin").waitFor();
      },
      {},
      `#/trace/?url=${known}`,
    );
  });

  it("selects a slice: facts, args, arrows, and the way along them", async () => {
    await withPage(async (page) => {
      await openFile(page, write("known.json", knownText));
      expect((await report(page)).arrows).toBe(0);
      await page.mouse.click(...(await placeOf(page, 150, stream27)));
      await page.locator(".slice-name").getByText("internode::dispatch").waitFor();
      expect(await fact(page, "Start").textContent()).toBe("100 µs");
      expect(await fact(page, "Duration").textContent()).toBe("120 µs");
      expect(await fact(page, "Lane").textContent()).toBe("python3 0 · stream 27");
      expect(await fact(page, "Class").textContent()).toBe("ep_dispatch · communication");
      await expect.poll(() => fact(page, "correlation").textContent()).toBe("2");
      expect(await fact(page, "grid").textContent()).toBe("[4,1,1]");
      // Its launch by correlation, and an operator by a flow.
      await expect.poll(async () => (await report(page)).arrows).toBe(2);
      const partners = page.locator(".partners").getByRole("button");
      expect((await partners.allTextContents()).toSorted()).toEqual([
        "aten::linear",
        "cudaLaunchKernel",
      ]);
      await partners.filter({ hasText: "cudaLaunchKernel" }).click();
      expect(await fact(page, "Start").textContent()).toBe("60 µs");
      await page.getByLabel("All arrows").check();
      await expect.poll(async () => (await report(page)).arrows).toBeGreaterThanOrEqual(4);
      await page.keyboard.press("Escape");
      await page.getByText("Click a slice").waitFor();
    });
  });

  it("sums a selected range as the analyser does", async () => {
    await withPage(async (page) => {
      await openFile(page, write("known.json", knownText));
      await page.keyboard.down("Shift");
      await page.mouse.move(...(await placeOf(page, 45, stream7)));
      await page.mouse.down();
      await page.mouse.move(...(await placeOf(page, 355, stream7)), { steps: 4 });
      await page.mouse.up();
      await page.keyboard.up("Shift");
      const { busyUs, computationUs, communicationUs, overlapUs, exposedUs } = knownFigures;
      expect(await fact(page, "Busy").textContent()).toContain(`${busyUs} µs`);
      expect(await fact(page, "Computation").textContent()).toContain(`${computationUs} µs`);
      expect(await fact(page, "Communication").textContent()).toContain(`${communicationUs} µs`);
      expect(await fact(page, "Hidden").textContent()).toBe(`${overlapUs} µs · 41.7 %`);
      expect(await fact(page, "Exposed").textContent()).toBe(`${exposedUs} µs`);
      expect(await fact(page, "Kernels").textContent()).toBe("3, 320.0 µs in all");
      const table = page.getByRole("table");
      const rows = async (): Promise<string[][]> =>
        Promise.all(
          (await table.locator("tbody tr").all()).map((row) =>
            row.locator("th, td").allInnerTexts(),
          ),
        );
      expect((await rows()).map((cells) => cells.slice(0, 4))).toEqual([
        ["deep_gemm::fp8_gemm", "2", "200.0 µs", "100.0 µs"],
        ["internode::dispatch", "1", "120.0 µs", "120.0 µs"],
      ]);
      await page.getByRole("button", { name: "Classes" }).click();
      expect((await rows()).map((cells) => cells[0])).toEqual(["gemm_fp8 · dense", "ep_dispatch"]);
      await page.getByRole("button", { name: "Streams" }).click();
      expect((await rows()).map((cells) => cells.slice(0, 2))).toEqual([
        ["stream 7", "200.0 µs"],
        ["stream 27", "120.0 µs"],
      ]);
      // Part of it, on the axis: the first GEMM alone.
      const head = await page.locator(".timeline-head").boundingBox();
      const y = (head?.y ?? 0) + 8 - ((await canvas(page).boundingBox())?.y ?? 0);
      await page.mouse.move(...(await placeOf(page, 50, y)));
      await page.mouse.down();
      await page.mouse.move(...(await placeOf(page, 100, y)), { steps: 4 });
      await page.mouse.up();
      await expect.poll(() => fact(page, "Exposed").count()).toBe(0);
      await page.getByText("kernels of the selected range", { exact: false }).waitFor();
    });
  });

  it("finds names, steps through the hits, and explains a bad expression", async () => {
    await withPage(async (page) => {
      await openFile(page, write("known.json", knownText));
      const told = page.locator(".search-count");
      await page.keyboard.press("/");
      await page.keyboard.type("GEMM");
      await told.getByText("2 hits").waitFor();
      await page.keyboard.press("Enter");
      await told.getByText("1 of 2").waitFor();
      expect(await fact(page, "Start").textContent()).toBe("50 µs");
      // Letters belong to the field while it has the focus.
      await page.keyboard.type("wasd");
      await told.getByText("no hit").waitFor();
      await page.getByLabel("Search names").fill("/^cuda|gemm/");
      await told.getByText("5 hits").waitFor();
      await page.locator(".timeline-lanes").focus();
      await page.keyboard.press("n");
      await told.getByText("1 of 5").waitFor();
      await page.keyboard.press("n");
      await told.getByText("2 of 5").waitFor();
      await page.keyboard.press("Shift+N");
      await page.keyboard.press("Shift+N");
      await told.getByText("5 of 5").waitFor();
      await page.getByLabel("Search names").fill("/(/");
      await told.getByText("Invalid regular expression").waitFor();
      await page.getByLabel("Search names").press("Escape");
      expect(await page.getByLabel("Search names").inputValue()).toBe("");
      expect(await told.textContent()).toBe("");
    });
  });

  it("goes everywhere by keys", async () => {
    await withPage(async (page) => {
      await openFile(page, write("known.json", knownText));
      const whole = await settled(page);
      const hold = async (key: string): Promise<FrameReport> => {
        await page.keyboard.down(key);
        await page.waitForTimeout(150);
        await page.keyboard.up(key);
        return settled(page);
      };
      const zoomed = await hold("w");
      expect(zoomed.endUs - zoomed.startUs).toBeLessThan(0.9 * (whole.endUs - whole.startUs));
      const right = await hold("d");
      expect(right.startUs).toBeGreaterThan(zoomed.startUs);
      expect((await hold("ArrowLeft")).startUs).toBeLessThan(right.startUs);
      const out = await hold("s");
      expect(out.endUs - out.startUs).toBeGreaterThan(right.endUs - right.startUs);
      await page.keyboard.press("0");
      expect(await settled(page)).toMatchObject({ startUs: whole.startUs, endUs: whole.endUs });
      // The first slice in view, then its neighbour in the row.
      await page.keyboard.press(".");
      const first = await page.locator(".slice-name").textContent();
      await page.keyboard.press(".");
      await page.keyboard.press(",");
      expect(await page.locator(".slice-name").textContent()).toBe(first);
      await page.keyboard.press("f");
      const fitted = await settled(page);
      expect(fitted.endUs - fitted.startUs).toBeLessThan(0.5 * (whole.endUs - whole.startUs));
      await page.keyboard.press("m");
      expect(await page.locator(".marks li").count()).toBe(1);
      await page.keyboard.press("m");
      expect(await page.locator(".marks").count()).toBe(0);
      await page.keyboard.press("?");
      await page.getByRole("dialog", { name: "Keys" }).getByText("zoom in and out").waitFor();
      await page.keyboard.press("Escape");
      expect(await page.getByRole("dialog").count()).toBe(0);
    });
  });

  it("zooms at the pointer, moves by dragging, and folds lanes", async () => {
    await withPage(async (page) => {
      await openFile(page, write("known.json", knownText));
      const [x, y] = await placeOf(page, 150, stream27);
      await page.mouse.move(x, y);
      await page.keyboard.down("Control");
      await page.mouse.wheel(0, -400);
      await page.keyboard.up("Control");
      const zoomed = await settled(page);
      expect(zoomed.endUs - zoomed.startUs).toBeLessThan(200);
      // The browser tells the pointer's place in whole pixels.
      const away = async (from: number): Promise<number> =>
        Math.abs((await placeOf(page, 150, stream27))[0] - from);
      expect(await away(x)).toBeLessThanOrEqual(1);
      await page.mouse.down();
      await page.mouse.move(x - 200, y, { steps: 5 });
      await page.mouse.up();
      expect(await away(x - 200)).toBeLessThanOrEqual(1);
      // A drag is no click.
      expect(await page.locator(".slice-name").count()).toBe(0);
      const rows = (await report(page)).rows;
      await page.getByRole("button", { name: "host process 9" }).click();
      await expect.poll(async () => (await report(page)).rows).toBeLessThan(rows);
      expect(await page.getByRole("button", { name: "main thread" }).count()).toBe(0);
    });
  });

  it("jumps instead of gliding where motion is unwelcome", async () => {
    await withPage(
      async (page) => {
        await openFile(page, write("known.json", knownText));
        const before = await settled(page);
        await page.keyboard.press("w");
        const after = await settled(page);
        const ratio = (after.endUs - after.startUs) / (before.endUs - before.startUs);
        expect(ratio).toBeCloseTo(0.7, 6);
        expect(after.frames - before.frames).toBeLessThanOrEqual(4);
      },
      { reducedMotion: "reduce" },
    );
  });

  it("draws a bounded number of rectangles of a million events", async () => {
    const path = join(folder, "million.json");
    const events = writeLargeTrace(path, 1_000_000, testSeed());
    await withPage(async (page) => {
      await page.locator("input[type=file]").setInputFiles(path);
      await page.locator(".timeline-lanes canvas[data-frames]").waitFor({ timeout: 60_000 });
      expect(await figure(page, "Events").textContent()).toBe(events.toLocaleString("en-US"));
      // Every frame while the view moves, as it was drawn.
      const worst = await page.evaluate(`(async () => {
        const canvas = document.querySelector(".timeline-lanes canvas");
        const press = (type, key) => dispatchEvent(new KeyboardEvent(type, { key }));
        let worst = { share: 0, labels: 0, frames: 0 };
        for (const key of ["w", "d", "s", "a", "w", "w", "d"]) {
          press("keydown", key);
          const end = performance.now() + 250;
          while (performance.now() < end) {
            await new Promise(requestAnimationFrame);
            const { rectangles, rows, labels, frames } = canvas.dataset;
            const share = (rectangles - 8) / (rows * canvas.width);
            worst.share = Math.max(worst.share, share);
            worst.labels = Math.max(worst.labels, Number(labels));
            worst.frames = Number(frames);
          }
          press("keyup", key);
        }
        return worst;
      })()`);
      const { share, labels, frames } = worst as Record<"share" | "labels" | "frames", number>;
      expect(share).toBeGreaterThan(0);
      expect(share).toBeLessThanOrEqual(1.5);
      expect(labels).toBeLessThanOrEqual(4000);
      expect(frames).toBeGreaterThan(10);
      await page.getByLabel("Search names").fill("fp8_m_grouped");
      const hits = page.locator(".search-count");
      await expect.poll(() => hits.textContent()).toMatch(/^\d\d,\d{3} hits$/);
      expect((await settled(page)).rectangles).toBeLessThan(3 * 40 * 1440);
    });
  });

  it("fits a phone", async () => {
    await withPage(
      async (page) => {
        await page.getByRole("button", { name: "Open the example" }).click();
        await drawn(page);
        const main = await page.evaluate(`(() => {
          const { scrollWidth, clientWidth } = document.querySelector("main");
          return { scrollWidth, clientWidth };
        })()`);
        const { scrollWidth, clientWidth } = main as Record<string, number>;
        expect(scrollWidth).toBe(clientWidth);
      },
      { viewport: { width: 390, height: 844 } },
    );
  });

  it.each(["light", "dark"] as const)("is drawn in the %s scheme", async (colorScheme) => {
    await withPage(
      async (page) => {
        await page.getByRole("button", { name: "Open the example" }).click();
        await drawn(page);
        // A combine of the first rank, and the launch it came from.
        const stream20 = 148;
        await page.mouse.move(...(await placeOf(page, 40_000, stream20)));
        await page.keyboard.down("w");
        await page.waitForTimeout(700);
        await page.keyboard.up("w");
        await settled(page);
        await page.getByLabel("Search names").fill("combine");
        await page.keyboard.press("Enter");
        await page.keyboard.press("Escape");
        await expect.poll(async () => (await report(page)).arrows).toBe(1);
        await page.mouse.move(...(await placeOf(page, 0, stream20)));
        await settled(page);
        const background = await page.evaluate(`(() => {
          const canvas = document.querySelector(".timeline-lanes canvas");
          const context = canvas.getContext("2d");
          return [...context.getImageData(2, canvas.height - 2, 1, 1).data];
        })()`);
        const [red = 0] = background as number[];
        expect(red > 128).toBe(colorScheme === "light");
        const screenshot = process.env.OPEN_INFRA_SCREENSHOT;
        if (screenshot === undefined) return;
        mkdirSync(dirname(screenshot), { recursive: true });
        const suffix = colorScheme === "dark" ? "-dark" : "";
        await page.screenshot({ path: join(dirname(screenshot), `trace${suffix}.png`) });
      },
      { colorScheme },
    );
  });
});
