// Headless Chromium for tests, and a page that turns everything the browser complains about into
// data a test can look at.

import { existsSync } from "node:fs";
import { delimiter, join } from "node:path";
import { type Browser, type BrowserContextOptions, chromium, type Page } from "playwright-core";

const ARGS = [
  "--headless=new",
  "--no-sandbox",
  "--disable-gpu",
  "--disable-quic",
  "--no-first-run",
  "--disable-background-networking",
  "--disable-component-update",
  "--disable-sync",
];

/** What a test asks of the machine, as its SKIP line says it. */
export const CHROMIUM_MISSING = "chromium is not installed; apt-get install chromium";

/** Starts the system's Chromium. */
export function launchChromium(): Promise<Browser> {
  const executablePath = (process.env.PATH ?? "")
    .split(delimiter)
    .map((dir) => join(dir, "chromium"))
    .find((path) => existsSync(path));
  if (executablePath === undefined) throw new Error(CHROMIUM_MISSING);
  // Playwright's own headless mode is another build of the browser; this is the real one.
  return chromium.launch({ executablePath, headless: false, args: ARGS });
}

/** A page with its complaints. */
export interface WatchedPage {
  readonly page: Page;
  /** Uncaught errors and errors on the console, broken content policy included. */
  readonly complaints: readonly string[];
}

/** Opens an empty page in a context of its own. */
export async function openPage(
  browser: Browser,
  options: BrowserContextOptions = {},
): Promise<WatchedPage> {
  const context = await browser.newContext({ viewport: { width: 1280, height: 800 }, ...options });
  const page = await context.newPage();
  page.setDefaultTimeout(10_000);
  const complaints: string[] = [];
  page.on("pageerror", (error) => complaints.push(String(error)));
  page.on("console", (message) => {
    // A refused request is logged by the browser itself and is what some tests are about.
    const expected = message.text().startsWith("Failed to load resource");
    if (message.type() === "error" && !expected) complaints.push(message.text());
  });
  return { page, complaints };
}
