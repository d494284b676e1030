// The server of one trace: the file as it is, the console beside it, and nothing else of the disk.

import { mkdirSync, mkdtempSync, rmSync, writeFileSync } from "node:fs";
import { request } from "node:http";
import { createServer } from "node:net";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { gzipSync } from "node:zlib";
import { InputError } from "@open-infra/errors";
import { afterAll, beforeAll, describe, expect, it } from "vitest";
import { PortInUseError, type RunningViewer, startViewer } from "../src/index.ts";
import { errorOf } from "./helpers/http.ts";

let folder = "";
let file = "";
let viewer: RunningViewer;
const trace = JSON.stringify({ traceEvents: [{ ph: "X", pid: 1, tid: 1, ts: 1, dur: 2 }] });

beforeAll(async () => {
  folder = mkdtempSync(join(tmpdir(), "open-infra-viewer-"));
  const dir = join(folder, "web");
  mkdirSync(join(dir, "assets"), { recursive: true });
  writeFileSync(join(dir, "index.html"), "<!doctype html><title>console</title>");
  writeFileSync(join(folder, "secret.txt"), "secret");
  file = join(folder, "step 7 (é).json");
  writeFileSync(file, trace);
  viewer = await startViewer({ file, console: { dir } });
});

afterAll(async () => {
  await viewer?.close();
  rmSync(folder, { recursive: true, force: true });
});

const origin = (): string => `http://127.0.0.1:${viewer.port}`;
/** The file's address, as the console reads it out of the page's. */
const fileUrl = (at: RunningViewer): string => {
  const { hash } = new URL(at.url);
  const path = new URLSearchParams(hash.replace(/^#\/trace\/\?/, "")).get("url") ?? "";
  return `http://127.0.0.1:${at.port}${path}`;
};

describe("the file", () => {
  it("comes whole, with its type, length and name", async () => {
    const response = await fetch(fileUrl(viewer));
    expect(response.status).toBe(200);
    expect(response.headers.get("content-type")).toBe("application/json");
    expect(response.headers.get("content-length")).toBe(String(trace.length));
    expect(response.headers.get("content-disposition")).toBe(
      "inline; filename*=UTF-8''step%207%20%28%C3%A9%29.json",
    );
    expect(response.headers.get("cache-control")).toBe("no-store");
    expect(response.headers.get("access-control-allow-origin")).toBeNull();
    expect(await response.text()).toBe(trace);
  });

  it("in gzip stays in gzip, whatever it is called", async () => {
    const packed = join(folder, "packed");
    writeFileSync(packed, gzipSync(trace));
    await using other = await startViewer({ file: packed, console: { dir: join(folder, "web") } });
    const response = await fetch(fileUrl(other));
    expect(response.headers.get("content-type")).toBe("application/gzip");
    expect(response.headers.get("content-encoding")).toBeNull();
    expect(new Uint8Array(await response.arrayBuffer()).slice(0, 2)).toEqual(
      new Uint8Array([0x1f, 0x8b]),
    );
  });

  it("is read anew for every request, and its end is told", async () => {
    const changing = join(folder, "changing.json");
    writeFileSync(changing, "[]");
    await using other = await startViewer({
      file: changing,
      console: { dir: join(folder, "web") },
    });
    writeFileSync(changing, "[1, 2, 3]");
    expect(await (await fetch(fileUrl(other))).text()).toBe("[1, 2, 3]");
    writeFileSync(changing, "");
    expect(await (await fetch(fileUrl(other))).text()).toBe("");
    rmSync(changing);
    expect((await errorOf(await fetch(fileUrl(other)), 404)).message).toContain("no longer there");
  });

  it("answers HEAD without a body", async () => {
    const response = await fetch(fileUrl(viewer), { method: "HEAD" });
    expect(response.headers.get("content-length")).toBe(String(trace.length));
    expect(await response.text()).toBe("");
  });
});

describe("what is beside it", () => {
  it("is the console, under its content policy", async () => {
    const response = await fetch(`${origin()}/`);
    expect(await response.text()).toContain("<title>console</title>");
    expect(response.headers.get("content-security-policy")).toContain("default-src 'self'");
  });

  it.each([
    "/trace/",
    "/trace/0123456789abcdef0123456789abcdef",
    "/secret.txt",
    "/../secret.txt",
    "/%2e%2e/secret.txt",
    "/..%2fsecret.txt",
    "/trace/..%2f..%2fsecret.txt",
    "/api/stats/stream",
    "/v1/models",
  ])("nothing at %s", async (path) => {
    // Not fetch, which would tidy the path up before it leaves.
    const status = await new Promise<number | undefined>((resolve, reject) => {
      request({ host: "127.0.0.1", port: viewer.port, path }, (response) => {
        response.resume();
        resolve(response.statusCode);
      })
        .on("error", reject)
        .end();
    });
    expect(status).toBe(404);
  });

  it("takes GET and HEAD only", async () => {
    const response = await fetch(fileUrl(viewer), { method: "POST", body: "x" });
    expect(response.headers.get("allow")).toBe("GET, HEAD");
    await errorOf(response, 405);
  });

  it("refuses names that point here from elsewhere", async () => {
    const status = (host: string): Promise<number | undefined> =>
      new Promise((resolve, reject) => {
        const path = new URL(fileUrl(viewer)).pathname;
        const headers = { host };
        request({ host: "127.0.0.1", port: viewer.port, path, headers }, (response) => {
          response.resume();
          resolve(response.statusCode);
        })
          .on("error", reject)
          .end();
      });
    expect(await status("evil.example")).toBe(403);
    expect(await status(`localhost:${viewer.port}`)).toBe(200);
  });
});

describe("what cannot be served", () => {
  const starting = (path: string): Promise<unknown> =>
    startViewer({ file: path, console: { dir: join(folder, "web") } }).catch((error) => error);

  it("is said with the file's name and the reason", async () => {
    const missing = await starting(join(folder, "none.json"));
    expect(missing).toBeInstanceOf(InputError);
    expect(String(missing)).toContain("none.json, which does not exist");
    expect(String(await starting(folder))).toContain("which is no regular file");
  });

  it("a console that is not built says how to build it", async () => {
    const error = await startViewer({ file, console: { missing: "run 'npm run build'" } }).catch(
      (reason: unknown) => reason,
    );
    expect(error).toBeInstanceOf(InputError);
    expect(String(error)).toContain("npm run build");
  });

  it("a taken port is a PortInUseError", async () => {
    const blocker = createServer().listen(0, "127.0.0.1");
    await new Promise((resolve) => blocker.once("listening", resolve));
    const { port } = blocker.address() as { port: number };
    const error = await startViewer({
      file,
      port,
      console: { dir: join(folder, "web") },
    }).catch((reason: unknown) => reason);
    blocker.close();
    expect(error).toBeInstanceOf(PortInUseError);
  });
});

it("closes while an answer is on its way", async () => {
  const large = join(folder, "large.json");
  writeFileSync(large, Buffer.alloc(32 * 2 ** 20, 32));
  const other = await startViewer({ file: large, console: { dir: join(folder, "web") } });
  const response = await fetch(fileUrl(other));
  const reader = response.body?.getReader();
  await reader?.read();
  await other.close();
  await expect(
    (async () => {
      for (;;) if ((await reader?.read())?.done) return;
    })(),
  ).rejects.toThrow();
});
