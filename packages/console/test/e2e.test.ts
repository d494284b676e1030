// The built app in headless Chromium against a scripted server: every state a user can meet. The
// real server has a file of its own.

import { hasProgram, requirement } from "@open-infra/testing";
import type { Browser, Page } from "playwright-core";
import { afterAll, beforeAll, describe, expect, it } from "vitest";
import { buildConsole } from "../build.ts";
import { CHROMIUM_MISSING, launchChromium, openPage, type WatchedPage } from "./helpers/browser.ts";
import { sampleStats } from "./helpers/sample-stats.ts";
import { type Call, ScriptedServer } from "./helpers/scripted-server.ts";

const skip = requirement("console in Chromium", hasProgram("chromium") || CHROMIUM_MISSING);

/** Continues any prompt with two pieces of text. */
function continuation(call: Call): undefined {
  call.text("    return ");
  call.text("n\n", "stop");
  call.done({ prompt: 12, completion: 2, cached: 8 });
}

describe.skipIf(skip)("the console", () => {
  let browser: Browser;
  let dir: string;

  beforeAll(async () => {
    [{ dir }, browser] = await Promise.all([buildConsole({ ifStale: true }), launchChromium()]);
  });

  afterAll(async () => {
    await browser?.close();
  });

  /** Opens the app against a fresh server, runs the test, and expects no complaint. */
  async function withApp(
    test: (app: WatchedPage & { readonly server: ScriptedServer }) => Promise<void>,
    prepare: (server: ScriptedServer) => void = () => undefined,
  ): Promise<void> {
    await using server = await ScriptedServer.start(dir, {
      models: ["demo"],
      stats: () => sampleStats(),
      statsIntervalMs: 50,
      complete: continuation,
    });
    prepare(server);
    const watched = await openPage(browser);
    try {
      await watched.page.goto(server.url);
      await test({ ...watched, server });
      expect(watched.complaints).toEqual([]);
    } finally {
      await watched.page.context().close();
    }
  }

  const sheet = (page: Page) => page.locator(".sheet-blocks");
  const reading = (page: Page, label: string) =>
    page.locator(".readout div", { has: page.getByText(label, { exact: true }) }).locator("dd");
  const status = (page: Page, text: string) =>
    page.locator(".server-state", { hasText: text }).waitFor();

  it("continues the example, takes it back and writes it anew", async () => {
    await withApp(async ({ page, server }) => {
      await page.getByRole("radio", { name: "Completion" }).isChecked();
      await page.getByRole("button", { name: "Continue" }).click();
      await reading(page, "State").getByText("Complete").waitFor();
      expect(await sheet(page).textContent()).toBe("def fibonacci(n):\n    return n\n\n");
      expect(await page.locator(".generated").textContent()).toBe("    return n\n");
      expect(await reading(page, "Prompt").textContent()).toBe("12 tok");
      expect(await reading(page, "Completion").textContent()).toBe("2 tok");
      expect(await reading(page, "Cached").textContent()).toBe("8 tok");
      const area = page.getByLabel("Text to continue");
      expect(await area.inputValue()).toBe("def fibonacci(n):\n    return n\n");

      await page.getByRole("button", { name: "Regenerate" }).click();
      await expect.poll(() => server.calls.length).toBe(2);
      await page.getByRole("button", { name: "Take back" }).click();
      expect(await area.inputValue()).toBe("def fibonacci(n):\n");
      expect(server.calls.map((call) => [call.path, call.body])).toEqual(
        [1, 2].map(() => [
          "/v1/completions",
          {
            model: "demo",
            prompt: "def fibonacci(n):\n",
            max_tokens: 256,
            stream: true,
            stream_options: { include_usage: true },
          },
        ]),
      );
    });
  });

  it("keeps the two layers of the sheet on top of each other", async () => {
    await withApp(async ({ page }) => {
      const area = page.getByLabel("Text to continue");
      const long = Array.from({ length: 90 }, (_, index) => {
        return `${"\t".repeat(index % 4)}${"word ".repeat(index)}${"x".repeat(3 * index)}  \n`;
      }).join("");
      for (const width of [1280, 390]) {
        await page.setViewportSize({ width, height: 800 });
        for (const text of [long, `${long}\n\n`, long.trimEnd()]) {
          await area.fill(text);
          const heights = await page.evaluate(`[
            document.querySelector(".sheet textarea").scrollHeight,
            document.querySelector(".sheet-blocks").scrollHeight,
          ]`);
          const [ofArea, ofBlocks] = heights as [number, number];
          // Half a line would be a line break in another place; rounding is a pixel.
          expect(Math.abs(ofArea - ofBlocks), `width ${width}`).toBeLessThanOrEqual(2);
        }
      }
    });
  });

  it("sends the settings, and holds back wrong ones", async () => {
    await withApp(async ({ page, server }) => {
      const field = (name: string) => page.getByLabel(name, { exact: true });
      await status(page, "Live");
      expect(await field("Temperature").getAttribute("placeholder")).toBe("0.6");
      await page.getByLabel("Temperature").fill("hot");
      await page.getByText("not a number").waitFor();
      expect(await page.getByRole("button", { name: "Continue" }).isDisabled()).toBe(true);
      await page.getByLabel("Temperature").fill("0.5");
      await page.getByLabel("Top k").fill("40");
      await page.getByLabel("Seed").fill("7");
      await page.getByLabel("Stop strings").fill("\\n\\n");
      await page.getByLabel("Text to continue").fill("x = ");
      await page.keyboard.press("Control+Enter");
      await expect.poll(() => server.calls.length).toBe(1);
      expect(server.calls[0]?.body).toMatchObject({
        prompt: "x = ",
        temperature: 0.5,
        top_k: 40,
        seed: 7,
        stop: ["\n\n"],
      });
    });
  });

  it("stops on Escape: the server sees the client hang up, the text stays", async () => {
    await withApp(
      async ({ page, server }) => {
        await page.getByLabel("Text to continue").focus();
        await page.keyboard.press("Control+Enter");
        await page.locator(".generated", { hasText: "half" }).waitFor();
        expect(await reading(page, "Completion").textContent()).toBe("≈ 1 tok");
        await page.keyboard.press("Escape");
        expect(await server.calls[0]?.aborted).toBe(true);
        await reading(page, "State").getByText("Stopped by you").waitFor();
        // The focus is back in the text, behind what came.
        await page.keyboard.type("!");
        const area = page.getByLabel("Text to continue");
        expect(await area.inputValue()).toBe("def fibonacci(n):\nhalf!");
      },
      (server) => {
        server.script.complete = (call) => {
          call.text("half");
          return undefined;
        };
      },
    );
  });

  it("shows the API's error in place and tries again", async () => {
    await withApp(
      async ({ page, server }) => {
        await page.getByRole("button", { name: "Continue" }).click();
        const alert = page.getByRole("alert");
        await alert.getByText("The queue is full").waitFor();
        expect(await alert.textContent()).toContain("512 requests are waiting");
        expect(await alert.textContent()).toContain("another try in 3 s");
        server.script.complete = continuation;
        await alert.getByRole("button", { name: "Retry" }).click();
        await reading(page, "State").getByText("Complete").waitFor();
        expect(await page.getByRole("alert").count()).toBe(0);
      },
      (server) => {
        const headers = { "retry-after": "3" };
        server.script.complete = () => ({
          status: 429,
          message: "512 requests are waiting.",
          headers,
        });
      },
    );
  });

  it("keeps what came before a cut, and says that it was cut", async () => {
    await withApp(
      async ({ page }) => {
        await page.getByRole("button", { name: "Continue" }).click();
        await page.getByRole("alert").getByText("Cut off").waitFor();
        expect(await page.locator(".generated").textContent()).toBe("beginning");
      },
      (server) => {
        server.script.complete = (call) => {
          call.text("beginning");
          setTimeout(() => call.cut(), 100);
          return undefined;
        };
      },
    );
  });

  it("reads an error that comes inside the stream", async () => {
    await withApp(
      async ({ page }) => {
        await page.getByRole("button", { name: "Continue" }).click();
        await page.getByRole("alert").getByText("the engine has failed").waitFor();
      },
      (server) => {
        server.script.complete = (call) => {
          call.text("a");
          call.send({ error: { message: "the engine has failed", type: "server_error" } });
          return undefined;
        };
      },
    );
  });

  it("chats: history, system prompt, edit, regenerate, clear", async () => {
    await withApp(
      async ({ page, server }) => {
        await page.getByRole("radio", { name: "Chat" }).waitFor();
        // A model large enough for it starts in chat mode.
        await expect.poll(() => page.getByRole("radio", { name: "Chat" }).isChecked()).toBe(true);
        await page.getByLabel("System prompt").fill("Be brief.");
        const messages = (index: number): unknown => server.calls[index]?.body.messages;
        const say = async (text: string): Promise<void> => {
          await page.getByRole("textbox", { name: "Message", exact: true }).fill(text);
          await page.keyboard.press("Enter");
          await page.getByRole("button", { name: "Regenerate" }).waitFor();
        };
        await say("first");
        const system = { role: "system", content: "Be brief." };
        const answer = { role: "assistant", content: "    return n\n" };
        expect(messages(0)).toEqual([system, { role: "user", content: "first" }]);
        await say("second");
        const before = [system, { role: "user", content: "first" }, answer];
        expect(messages(1)).toEqual([...before, { role: "user", content: "second" }]);
        await page.getByRole("button", { name: "Regenerate" }).click();
        await expect.poll(() => server.calls.length).toBe(3);
        expect(messages(2)).toEqual(messages(1));

        await page.getByRole("button", { name: "Edit" }).first().click();
        await page.getByLabel("Edit the message").fill("other");
        await page.keyboard.press("Enter");
        await expect.poll(() => server.calls.length).toBe(4);
        expect(messages(3)).toEqual([system, { role: "user", content: "other" }]);
        await expect.poll(() => page.getByRole("article").count()).toBe(2);
        expect(server.calls[3]?.path).toBe("/v1/chat/completions");
        expect(server.calls[3]?.body).not.toHaveProperty("max_tokens");

        await page.getByRole("button", { name: "Clear" }).click();
        await page.getByText("Nothing said yet").waitFor();
      },
      (server) => {
        server.script.stats = () => sampleStats({ model: { parameters: 15_700_000_000 } });
      },
    );
  });

  it("draws Markdown, and never as HTML", async () => {
    const hostile =
      '<img src=x onerror="document.title=1">**<b>x</b>**\n```html\n<script>1</script>\n```';
    await withApp(
      async ({ page }) => {
        await page.getByRole("textbox", { name: "Message", exact: true }).fill("go");
        await page.keyboard.press("Enter");
        await page.getByRole("button", { name: "Regenerate" }).waitFor();
        const answer = page.locator(".markdown");
        expect(await answer.locator("strong").textContent()).toBe("<b>x</b>");
        expect(await answer.locator("pre").textContent()).toBe("<script>1</script>");
        expect(await answer.locator("img, script, b").count()).toBe(0);
        expect(await answer.textContent()).toContain('<img src=x onerror="document.title=1">');
      },
      (server) => {
        // A model of this size opens in chat mode.
        server.script.stats = () => sampleStats({ model: { parameters: 15_700_000_000 } });
        server.script.complete = (call) => {
          for (const piece of hostile.match(/.{1,3}/gs) ?? []) call.text(piece);
          call.done({ prompt: 1, completion: 9 });
          return undefined;
        };
      },
    );
  });

  it("waits for a loading server, notices one that goes away, and comes back", async () => {
    await withApp(
      async ({ page, server }) => {
        await status(page, "Loading");
        await page.getByText("12 of 30 shards").waitFor();
        server.script.stats = () => sampleStats();
        await status(page, "Live");
        expect(await page.locator(".banner").count()).toBe(0);
        const port = Number(new URL(server.url).port);
        await server.close();
        await page.getByText("The server is away").waitFor();
        await status(page, "Away");
        await page.getByRole("button", { name: "Continue" }).click();
        await page.getByRole("alert").getByText("No connection").waitFor();
        await server.reopen(port);
        await page.getByRole("button", { name: "Try now" }).click();
        await status(page, "Live");
      },
      (server) => {
        server.script.stats = () => ({ status: 503, message: "Loading weights: 12 of 30 shards." });
      },
    );
  });

  it("asks for a key, sends it, and keeps it for the session only", async () => {
    await withApp(
      async ({ page, server }) => {
        await page.getByRole("button", { name: "Enter the key" }).click();
        server.script.stats = () => sampleStats();
        await page.getByLabel("Key", { exact: true }).fill("sesame");
        await page.keyboard.press("Enter");
        await status(page, "Live");
        await page.getByRole("button", { name: "Continue" }).click();
        await reading(page, "State").getByText("Complete").waitFor();
        expect(server.calls[0]?.authorization).toBe("Bearer sesame");
        await page.reload();
        await page.getByRole("button", { name: "API key set" }).waitFor();
        expect(await page.evaluate("localStorage.length + document.cookie.length")).toBe(0);
        expect(page.url()).not.toContain("sesame");
      },
      (server) => {
        server.script.stats = () => ({ status: 401, message: "bad key" });
      },
    );
  });

  it("shows the engine: facts, figures, charts that draw something", async () => {
    let seconds = 0;
    await withApp(
      async ({ page }) => {
        await page.getByRole("link", { name: "Engine" }).click();
        await expect.poll(() => page.title()).toBe("Engine · Open Infra");
        const panel = (name: string) => page.getByRole("region", { name, exact: true });
        const figure = (name: string) => panel(name).locator(".figure-value").first();
        await expect.poll(() => figure("Generation").textContent()).toBe("25.0");
        expect(await figure("Prompt").textContent()).toBe("100");
        expect(await figure("Requests").textContent()).toBe("3");
        expect(await figure("Batch").textContent()).toBe("7");
        expect(await figure("Step").textContent()).toBe("12.5");
        expect(await figure("KV cache").textContent()).toBe("96");
        expect(await panel("KV cache").textContent()).toContain("/ 512");
        expect(await figure("Prefix cache").textContent()).toBe("40.0 %");
        expect(await panel("Since start").textContent()).toContain("Preemptions4");
        const facts = await page.locator(".model-strip").textContent();
        for (const fact of ["demo", "9.67 M", "fp8", "1,024 tokens", "avx512"]) {
          expect(facts).toContain(fact);
        }
        await expect.poll(() => page.locator(".panel canvas").count()).toBe(7);
        const drawn = await page.evaluate(`[...document.querySelectorAll(".panel canvas")].every(
          (canvas) => canvas.getContext("2d").getImageData(0, 0, canvas.width, canvas.height)
            .data.some((value) => value > 0))`);
        expect(drawn).toBe(true);
        await panel("Generation").locator(".u-over").hover();
        await page.getByText(/^\d+ s ago$/).waitFor();
      },
      (server) => {
        server.script.stats = () => {
          seconds++;
          return sampleStats({
            uptimeSeconds: seconds,
            stats: {
              running: 3,
              kvBlocksUsed: 96,
              generationTokens: 25 * seconds,
              promptTokens: 100 * seconds,
              prefixCacheQueriedTokens: 100 * seconds,
              prefixCacheHitTokens: 40 * seconds,
              preemptions: 4,
              steps: 2 * seconds,
              lastStep: { tokens: 7, sequences: 3, ms: 12.5 },
            },
          });
        };
      },
    );
  });

  it("goes on writing while another page is shown", async () => {
    const { promise: more, resolve: goOn } = Promise.withResolvers<void>();
    await withApp(
      async ({ page }) => {
        await page.getByRole("button", { name: "Continue" }).click();
        await page.locator(".generated", { hasText: "one" }).waitFor();
        await page.getByRole("link", { name: "Engine" }).click();
        await page.getByRole("heading", { name: "Engine" }).waitFor();
        goOn();
        await page.goBack();
        await reading(page, "State").getByText("Complete").waitFor();
        expect(await page.locator(".generated").textContent()).toBe("one two");
      },
      (server) => {
        server.script.complete = async (call) => {
          call.text("one");
          await more;
          call.text(" two", "stop");
          call.done({ prompt: 1, completion: 2 });
          return undefined;
        };
      },
    );
  });

  it("fits a phone, works by keyboard, and has a page for a wrong address", async () => {
    await withApp(async ({ page, server }) => {
      await page.setViewportSize({ width: 390, height: 844 });
      for (const address of ["#/chat", "#/engine", "#/nowhere"]) {
        await page.goto(server.url + address);
        await page.locator("main h1").waitFor({ state: "attached" });
        const overflow = "document.documentElement.scrollWidth - innerWidth";
        expect(await page.evaluate(overflow), address).toBeLessThanOrEqual(0);
      }
      await page.getByRole("link", { name: "Go to the first page" }).click();
      // From the top of the page, the link to the engine page is a few tabs away.
      await page.reload();
      const focused = (): Promise<string> => page.evaluate("document.activeElement.textContent");
      for (let tabs = 0; tabs < 6 && (await focused()) !== "Engine"; tabs++) {
        await page.keyboard.press("Tab");
      }
      await page.keyboard.press("Enter");
      await page.getByRole("heading", { name: "Engine" }).waitFor();
    });
  });
});
