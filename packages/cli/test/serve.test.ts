// `open-infra serve` as an operator meets it: ready, stopped, in the way of another server.

import { once } from "node:events";
import { mkdtempSync, readFileSync, rmSync } from "node:fs";
import { createServer } from "node:net";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterAll, beforeAll, describe, expect, it } from "vitest";
import { runCli, startServe } from "./run-cli.ts";

let folder = "";
beforeAll(() => {
  folder = mkdtempSync(join(tmpdir(), "open-infra-serve-"));
});
afterAll(() => rmSync(folder, { recursive: true, force: true }));

function complete(url: string, body: Record<string, unknown>): Promise<Response> {
  return fetch(`${url}/v1/completions`, {
    method: "POST",
    headers: { "content-type": "application/json" },
    body: JSON.stringify({ model: "demo", ...body }),
  });
}

describe("serve", () => {
  it("serves the demo, writes a trace, and stops on SIGTERM with status 0", async () => {
    const trace = join(folder, "trace.json");
    const { url, child, exited } = await startServe(["--trace", trace]);
    const response = await complete(url, { prompt: "def f(x):\n", max_tokens: 8, temperature: 0 });
    expect(response.status).toBe(200);
    child.kill("SIGTERM");
    expect(await exited).toBe(0);
    const { traceEvents } = JSON.parse(readFileSync(trace, "utf8"));
    const names = new Set(traceEvents.map((event: { name: string }) => event.name));
    expect([...names].some((name) => String(name).includes("step"))).toBe(true);
    expect([...names].some((name) => String(name).toLowerCase().includes("gemm"))).toBe(true);
  });

  it("finishes running requests on SIGTERM", async () => {
    const { url, child, exited } = await startServe([]);
    const running = complete(url, {
      prompt: "import os\n",
      max_tokens: 200,
      temperature: 0,
      ignore_eos: true,
      stream: true,
    });
    const response = await running;
    const reader = response.body?.getReader();
    await reader?.read();
    child.kill("SIGTERM");
    let text = "";
    for (;;) {
      const chunk = await reader?.read();
      if (!chunk || chunk.done) break;
      text += new TextDecoder().decode(chunk.value);
    }
    expect(text).toContain('"finish_reason":"length"');
    expect(text.trimEnd().endsWith("data: [DONE]")).toBe(true);
    expect(await exited).toBe(0);
  });

  it("names a port that is taken and what to do", async () => {
    const blocker = createServer().listen(0, "127.0.0.1");
    await once(blocker, "listening");
    const { port } = blocker.address() as { port: number };
    const { code, stderr } = await runCli(["serve", "--port", String(port)]);
    blocker.close();
    expect(stderr).toContain(String(port));
    expect(stderr).toContain("--port");
    expect(code).toBe(1);
  });

  it("requires the key it was given", async () => {
    const { url, child, exited } = await startServe([], { OPEN_INFRA_API_KEY: "secret" });
    expect((await complete(url, { prompt: "x" })).status).toBe(401);
    const models = await fetch(`${url}/v1/models`, { headers: { authorization: "Bearer secret" } });
    expect(models.status).toBe(200);
    child.kill("SIGTERM");
    expect(await exited).toBe(0);
  });
});
