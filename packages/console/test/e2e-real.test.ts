// The console against the real thing: `open-infra serve` as a process of its own, with the demo
// model. With OPEN_INFRA_SCREENSHOT=<file>.png it also leaves the README's pictures: the chat page
// there, the engine page beside it as <file>-engine.png.

import { type ChildProcess, spawn } from "node:child_process";
import { fileURLToPath } from "node:url";
import { hasProgram, requirement } from "@open-infra/testing";
import type { Browser } from "playwright-core";
import { afterAll, beforeAll, describe, expect, it } from "vitest";
import { buildConsole } from "../build.ts";
import { parseChunk, parseModels } from "../web/src/api/wire.ts";
import { CHROMIUM_MISSING, launchChromium, openPage } from "./helpers/browser.ts";

const root = fileURLToPath(new URL("../../..", import.meta.url));
const skip = requirement(
  "console with the real server",
  hasProgram("chromium") || CHROMIUM_MISSING,
);
/** The first start on a machine compiles the kernels. */
const START_MS = 110_000;
/** How long the engine is kept busy for its picture. */
const LOAD_MS = 56_000;

/** Starts the server as the README does, and waits for the address that it prints. */
async function startServer(): Promise<{ readonly child: ChildProcess; readonly url: string }> {
  const args = ["scripts/guard.mjs", "--conditions=@open-infra/source", "packages/cli/src/main.ts"];
  const child = spawn(process.execPath, [...args, "serve", "--port", "0"], {
    cwd: root,
    stdio: ["ignore", "pipe", "pipe"],
  });
  let printed = "";
  const url = await new Promise<string>((resolve, reject) => {
    const read = (chunk: Buffer): void => {
      printed += chunk.toString();
      const address = /http:\/\/127\.0\.0\.1:[1-9]\d*/.exec(printed)?.[0];
      if (address !== undefined) resolve(address);
    };
    child.stdout.on("data", read);
    child.stderr.on("data", read);
    child.on("error", reject);
    child.on("exit", (code) => reject(new Error(`serve ended with ${code}:\n${printed}`)));
  });
  return { child, url };
}

describe.skipIf(skip)("the console with the real server", () => {
  let browser: Browser;
  let child: ChildProcess | undefined;
  let url: string;

  beforeAll(async () => {
    await buildConsole({ ifStale: true });
    browser = await launchChromium();
    ({ child, url } = await startServer());
  }, START_MS);

  afterAll(async () => {
    await browser?.close();
    if (child?.exitCode !== null) return;
    const gone = new Promise<void>((resolve) => child?.once("exit", () => resolve()));
    child.kill("SIGTERM");
    await gone;
  });

  it(
    "serves the app under a policy that it keeps to",
    async () => {
      const response = await fetch(url);
      expect(response.headers.get("content-type")).toContain("text/html");
      const { page, complaints } = await openPage(browser);
      await page.goto(url);
      await page.locator(".server-state", { hasText: "Live" }).waitFor({ timeout: START_MS });
      expect(complaints).toEqual([]);
      await page.context().close();
    },
    START_MS,
  );

  it("continues code as the API does, and shows the engine at work", async () => {
    const { page, complaints } = await openPage(browser);
    const screenshot = process.env.OPEN_INFRA_SCREENSHOT;
    const prompt = "def fibonacci(n):\n";
    await page.goto(url);
    await page.locator(".server-state", { hasText: "Live" }).waitFor({ timeout: START_MS });
    expect(await page.getByRole("radio", { name: "Completion" }).isChecked()).toBe(true);
    expect(await page.getByLabel("Text to continue").inputValue()).toBe(prompt);
    await page.getByLabel("Temperature").fill("0");
    await page.getByLabel("Max tokens").fill("96");
    await page.getByRole("button", { name: "Continue" }).click();
    const state = page.locator(".readout dd").first();
    await state.getByText(/Complete|Length limit/).waitFor({ timeout: 60_000 });
    const written = await page.getByLabel("Text to continue").inputValue();
    const readout = await page.locator(".readout").textContent();
    if (screenshot !== undefined) await page.screenshot({ path: screenshot });

    // The same request through the API, without streaming: the same text, the same counts.
    const response = await fetch(`${url}/v1/completions`, {
      method: "POST",
      headers: { "content-type": "application/json" },
      body: JSON.stringify({ model: await modelId(), prompt, temperature: 0, max_tokens: 96 }),
    });
    const { text, usage } = parseChunk(await response.text());
    expect(text.length).toBeGreaterThan(20);
    expect(written).toBe(prompt + text);
    expect(readout).toContain(`Completion${usage?.completionTokens} tok`);
    expect(readout).toContain(`Prompt${usage?.promptTokens} tok`);

    await page.getByRole("link", { name: "Engine" }).click();
    const load = screenshot === undefined ? undefined : busy();
    const totals = page.getByRole("region", { name: "Since start" });
    const generated = totals.locator("div", { hasText: "Generated tokens" }).locator("dd");
    await expect
      .poll(async () => Number((await generated.textContent())?.replaceAll(",", "")))
      .toBeGreaterThanOrEqual(2 * (usage?.completionTokens ?? Number.NaN));
    if (screenshot !== undefined) {
      await page.waitForTimeout(LOAD_MS - 4000);
      await page.screenshot({ path: screenshot.replace(/\.png$/, "-engine.png") });
    }
    await load;
    expect(complaints).toEqual([]);
    await page.context().close();
  }, 180_000);

  async function modelId(): Promise<string> {
    const response = await fetch(`${url}/v1/models`);
    return parseModels(await response.text())[0] ?? "";
  }

  /** Requests of which more and then fewer run beside each other, for the picture. */
  async function busy(): Promise<void> {
    const model = await modelId();
    const startedAt = performance.now();
    const left = (): number => 1 - (performance.now() - startedAt) / LOAD_MS;
    const preface = "# The stack of the interpreter, as a list that grows at one end.\n".repeat(8);
    const client = async (number: number): Promise<void> => {
      await new Promise((resolve) => setTimeout(resolve, (number * LOAD_MS) / 40));
      for (let round = 0; left() > number / 40; round++) {
        const response = await fetch(`${url}/v1/completions`, {
          method: "POST",
          headers: { "content-type": "application/json" },
          body: JSON.stringify({
            model,
            prompt: `${preface}def push_${number}_${round}(self, item):\n`,
            seed: round,
            max_tokens: 40 + 25 * ((number + round) % 7),
          }),
        });
        await response.arrayBuffer();
      }
    };
    await Promise.all(Array.from({ length: 18 }, (_, number) => client(number)));
  }
});
