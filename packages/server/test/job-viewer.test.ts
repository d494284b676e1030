// The server of jobs' logs: pieces as they grow, this machine only, and nothing else of the disk.

import { appendFileSync, mkdirSync, mkdtempSync, rmSync, writeFileSync } from "node:fs";
import { request } from "node:http";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterAll, beforeAll, describe, expect, it } from "vitest";
import { type RunningViewer, startJobViewer } from "../src/index.ts";

let folder = "";
let log = "";
let viewer: RunningViewer;

beforeAll(async () => {
  folder = mkdtempSync(join(tmpdir(), "open-infra-job-viewer-"));
  const dir = join(folder, "web");
  mkdirSync(dir);
  writeFileSync(join(dir, "index.html"), "<!doctype html><title>console</title>");
  log = join(folder, "events.jsonl");
  writeFileSync(log, '{"atMs":1}\n');
  viewer = await startJobViewer({
    list: async () => [{ jobId: "nightly" }],
    logOf: async (job) => (job === "nightly" ? log : undefined),
    ...{ job: "nightly", console: { dir } },
  });
});

afterAll(async () => {
  await viewer?.close();
  rmSync(folder, { recursive: true, force: true });
});

const at = (): string => {
  const { hash } = new URL(viewer.url);
  const query = new URLSearchParams(hash.slice(hash.indexOf("?")));
  return `http://127.0.0.1:${viewer.port}${query.get("at") ?? ""}`;
};

/** A request whose Host is what its sender likes. */
function statusWithHost(url: string, host: string): Promise<number | undefined> {
  return new Promise((resolve, reject) => {
    const asked = request(url, { headers: { host } }, (response) => {
      response.resume();
      resolve(response.statusCode);
    });
    asked.on("error", reject).end();
  });
}

describe("the server of jobs", () => {
  it("opens the console at the job", () => {
    expect(viewer.url).toMatch(/^http:\/\/127\.0\.0\.1:\d+\/#\/jobs\/\?at=.*&job=nightly$/);
  });

  it("lists jobs and gives a log from where the asker is", async () => {
    expect(await (await fetch(`${at()}/list`)).json()).toEqual([{ jobId: "nightly" }]);
    const first = await fetch(`${at()}/log?job=nightly`);
    expect(first.headers.get("x-log-bytes")).toBe("11");
    expect(await first.text()).toBe('{"atMs":1}\n');
    expect(await (await fetch(`${at()}/log?job=nightly&from=11`)).text()).toBe("");
    appendFileSync(log, '{"atMs":2}\n');
    const more = await fetch(`${at()}/log?job=nightly&from=11`);
    expect(more.headers.get("cache-control")).toBe("no-store");
    expect(await more.text()).toBe('{"atMs":2}\n');
  });

  it("knows no other job and no other offset", async () => {
    expect((await fetch(`${at()}/log?job=..%2Fsecret`)).status).toBe(404);
    expect((await fetch(`${at()}/log?job=nightly&from=-1`)).status).toBe(400);
    expect((await fetch(`${at()}/log?job=nightly&from=x`)).status).toBe(400);
  });

  it("refuses a Host that is not this machine's, as another site's page sends", async () => {
    expect(await statusWithHost(`${at()}/list`, `127.0.0.1:${viewer.port}`)).toBe(200);
    expect(await statusWithHost(`${at()}/list`, "evil.example")).toBe(403);
    expect(await statusWithHost(`${at()}/log?job=nightly`, "evil.example")).toBe(403);
  });

  it("lets no other site read it, and answers nothing at a guessed address", async () => {
    const response = await fetch(`${at()}/list`, { headers: { origin: "http://evil.example" } });
    expect(response.headers.get("access-control-allow-origin")).toBeNull();
    expect(response.headers.get("cross-origin-resource-policy")).toBe("same-origin");
    const guessed = await fetch(`http://127.0.0.1:${viewer.port}/jobs/0000/list`);
    expect(await guessed.text()).not.toContain("nightly");
  });
});
