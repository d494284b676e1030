// The built app in Chromium at an address, with a scripted server behind it; any complaint of the
// browser fails the test. For pages that compute by themselves.

import { execFile } from "node:child_process";
import { mkdirSync } from "node:fs";
import { dirname, join } from "node:path";
import { fileURLToPath } from "node:url";
import type { Browser, BrowserContextOptions, Download, Page } from "playwright-core";
import { expect } from "vitest";
import { openPage } from "./browser.ts";
import { sampleStats } from "./sample-stats.ts";
import { ScriptedServer } from "./scripted-server.ts";

/** Opens `address`, runs the test, and expects no complaint. */
export async function withConsolePage(
  { browser, dir }: { readonly browser: Browser; readonly dir: string },
  address: string,
  test: (page: Page, url: string) => Promise<void>,
  options: BrowserContextOptions = {},
): Promise<void> {
  await using server = await ScriptedServer.start(dir, {
    models: ["demo"],
    stats: () => sampleStats(),
    statsIntervalMs: 1000,
    complete: () => undefined,
  });
  const viewport = { width: 1440, height: 1000 };
  const { page, complaints } = await openPage(browser, { viewport, ...options });
  try {
    await page.goto(server.url + address);
    await test(page, server.url);
    expect(complaints).toEqual([]);
  } finally {
    await page.context().close();
  }
}

/** The value of a figure of a strip, without what stands beside it. */
export async function figureOf(page: Page, name: string): Promise<string> {
  const entry = page.locator(".bench-figures > div", {
    has: page.locator("dt").getByText(name, { exact: true }),
  });
  const text = (await entry.locator("dd").textContent()) ?? "";
  const beside = entry.locator("dd .unit");
  const small = (await beside.count()) > 0 ? ((await beside.textContent()) ?? "") : "";
  return text.slice(0, text.length - small.length).trim();
}

/** Lets a file go over the window, as the browser tells it. */
export async function dropFile(page: Page, name: string, text: string): Promise<void> {
  await page.evaluate(`{
    const data = new DataTransfer();
    data.items.add(new File([${JSON.stringify(text)}], ${JSON.stringify(name)}));
    const options = { dataTransfer: data, bubbles: true, cancelable: true };
    document.body.dispatchEvent(new DragEvent("dragover", options));
    document.body.dispatchEvent(new DragEvent("drop", options));
  }`);
}

/** Presses a button that saves a file. */
export async function saved(page: Page, button: string): Promise<Download> {
  const [download] = await Promise.all([
    page.waitForEvent("download"),
    page.getByRole("button", { name: button, exact: true }).click(),
  ]);
  return download;
}

/** Runs what the page offers as a command, with its files in `folder`; what it printed. */
export function runCommand(command: string, folder: string): Promise<string> {
  const [program, ...args] = command.split(" ");
  if (program !== "open-infra") throw new Error(`the command is ${command}`);
  const main = fileURLToPath(new URL("../../../cli/src/main.ts", import.meta.url));
  const node = ["--conditions=@open-infra/source", main, ...args];
  const options = { cwd: folder, maxBuffer: 2 ** 26 };
  return new Promise((resolve, reject) => {
    execFile(process.execPath, node, options, (error, stdout, stderr) => {
      if (error === null) resolve(stdout);
      else reject(new Error(`${command}: ${stderr}`));
    });
  });
}

/** With OPEN_INFRA_SCREENSHOT set leaves a picture beside the one it names. */
export async function screenshot(page: Page, name: string): Promise<void> {
  const beside = process.env.OPEN_INFRA_SCREENSHOT;
  if (beside === undefined) return;
  mkdirSync(dirname(beside), { recursive: true });
  await page.screenshot({ path: join(dirname(beside), `${name}.png`) });
}

/** The colour of a pixel of a canvas, device pixels from its corner. */
export function pixelOf(page: Page, selector: string, x: number, y: number): Promise<number[]> {
  return page.evaluate(`(() => {
    const canvas = document.querySelector(${JSON.stringify(selector)});
    const context = canvas.getContext("2d");
    return [...context.getImageData(${Math.round(x)}, ${Math.round(y)}, 1, 1).data].slice(0, 3);
  })()`);
}
