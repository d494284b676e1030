// `open-infra trace view` as a person meets it: an address that answers, an end on a signal, and
// plain words for what cannot be shown.

import { execFileSync } from "node:child_process";
import { mkdtempSync, rmSync, writeFileSync } from "node:fs";
import { createServer } from "node:net";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { fileURLToPath } from "node:url";
import { afterAll, beforeAll, describe, expect, it } from "vitest";
import { runCli, startCli } from "./run-cli.ts";

const trace = '{"traceEvents":[{"ph":"X","pid":1,"tid":1,"ts":1,"dur":2,"name":"step"}]}';
let folder = "";
let file = "";

beforeAll(() => {
  folder = mkdtempSync(join(tmpdir(), "open-infra-trace-view-"));
  file = join(folder, "step.json");
  writeFileSync(file, trace);
  // What `npm ci` does; returns at once when the console is built.
  const build = fileURLToPath(new URL("../../console/build.ts", import.meta.url));
  execFileSync(process.execPath, ["--conditions=@open-infra/source", build, "--if-stale"]);
});
afterAll(() => rmSync(folder, { recursive: true, force: true }));

/** Starts the command and waits for its address. */
async function startView(
  ...args: string[]
): Promise<{ url: URL; stop(signal: NodeJS.Signals): Promise<number | null>; out(): string }> {
  const child = startCli(["trace", "view", ...args]);
  let out = "";
  let err = "";
  const exited = new Promise<number | null>((resolve) => child.on("close", resolve));
  child.stderr?.on("data", (chunk: Buffer) => {
    err += chunk.toString();
  });
  const url = await new Promise<URL>((resolve, reject) => {
    child.stdout?.on("data", (chunk: Buffer) => {
      out += chunk.toString();
      const found = /ready on (http:\S+)\n/.exec(out)?.[1];
      if (found !== undefined) resolve(new URL(found));
    });
    child.on("close", (code) => reject(new Error(`trace view ended with ${code}:\n${err}`)));
  });
  const stop = (signal: NodeJS.Signals): Promise<number | null> => {
    child.kill(signal);
    return exited;
  };
  return { url, stop, out: () => out };
}

describe("trace view", () => {
  it.each(["SIGTERM", "SIGINT"] as const)(
    "serves the console and the file, and ends on %s",
    async (signal) => {
      const { url, stop, out } = await startView(file);
      expect(url.hostname).toBe("127.0.0.1");
      expect(await (await fetch(new URL("/", url))).text()).toContain("<title>Open Infra</title>");
      const path = new URLSearchParams(url.hash.replace(/^#\/trace\/\?/, "")).get("url") ?? "";
      expect(await (await fetch(new URL(path, url))).text()).toBe(trace);
      expect(await stop(signal)).toBe(0);
      expect(out()).toBe(`ready on ${url}\n`);
    },
  );

  it("says what is wrong with a file that is none", async () => {
    const { code, stdout, stderr } = await runCli(["trace", "view", join(folder, "none.json")]);
    expect({ code, stdout }).toEqual({ code: 2, stdout: "" });
    expect(stderr).toMatch(/none\.json, which does not exist/);
    expect((await runCli(["trace", "view", folder])).stderr).toContain("no regular file");
    expect(await runCli(["trace", "view", "-"])).toMatchObject({ code: 2 });
  });

  it("says that a port is taken", async () => {
    const blocker = createServer().listen(0, "127.0.0.1");
    await new Promise((resolve) => blocker.once("listening", resolve));
    const { port } = blocker.address() as { port: number };
    const { code, stderr } = await runCli(["trace", "view", file, "--port", String(port)]);
    blocker.close();
    expect(code).toBe(1);
    expect(stderr).toContain(`port ${port}`);
  });
});
