// The console's files: the right types and caching, and nothing outside their folder.

import { mkdirSync, mkdtempSync, rmSync, symlinkSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterAll, beforeAll, describe, expect, it } from "vitest";
import { errorOf, testApp } from "./helpers/http.ts";

let folder = "";
let dir = "";
beforeAll(() => {
  folder = mkdtempSync(join(tmpdir(), "open-infra-static-"));
  dir = join(folder, "web");
  mkdirSync(join(dir, "assets"), { recursive: true });
  writeFileSync(join(dir, "index.html"), "<!doctype html><title>console</title>");
  writeFileSync(join(dir, "assets", "app-1a2b.js"), "export {};");
  writeFileSync(join(dir, "assets", "app-1a2b.css"), "a{}");
  writeFileSync(join(dir, "favicon.svg"), "<svg/>");
  writeFileSync(join(dir, ".env"), "hidden");
  writeFileSync(join(folder, "secret.txt"), "secret");
  symlinkSync(join(folder, "secret.txt"), join(dir, "link.txt"));
});
afterAll(() => rmSync(folder, { recursive: true, force: true }));

const app = () => testApp(undefined, { console: { dir } });

describe("files", () => {
  it.each([
    ["/", "text/html; charset=utf-8", "no-cache"],
    ["/index.html", "text/html; charset=utf-8", "no-cache"],
    ["/favicon.svg", "image/svg+xml", "no-cache"],
    [
      "/assets/app-1a2b.js",
      "text/javascript; charset=utf-8",
      "public, max-age=31536000, immutable",
    ],
    ["/assets/app-1a2b.css", "text/css; charset=utf-8", "public, max-age=31536000, immutable"],
  ])("%s is %s", async (path, type, cache) => {
    const { fetch } = await app();
    const response = await fetch(path);
    expect(response.status).toBe(200);
    expect(response.headers.get("content-type")).toBe(type);
    expect(response.headers.get("cache-control")).toBe(cache);
    expect(response.headers.get("x-content-type-options")).toBe("nosniff");
    expect(response.headers.get("content-security-policy")).toContain("default-src 'self'");
    const etag = response.headers.get("etag") ?? "";
    const again = await fetch(path, { headers: { "if-none-match": etag } });
    expect(again.status).toBe(304);
    expect(await again.text()).toBe("");
  });

  it("HEAD has no body", async () => {
    const { fetch } = await app();
    const response = await fetch("/", { method: "HEAD" });
    expect(response.status).toBe(200);
    expect(await response.text()).toBe("");
  });
});

describe("what is not the console's", () => {
  it.each([
    "/../secret.txt",
    "/..%2fsecret.txt",
    "/%2e%2e/secret.txt",
    "/assets/..%2f..%2fsecret.txt",
    "/assets/%2e%2e%5c%2e%2e%5csecret.txt",
    "/..%5csecret.txt",
    "/link.txt",
    "/.env",
    "/assets",
    "/assets/",
    "//etc/passwd",
    "/%2fetc/passwd",
    "/%00",
    "/index.html%00.js",
    "/%E0%A4%A",
    "/missing.js",
    `/${"a/".repeat(3000)}`,
  ])("%s is not served", async (path) => {
    const { fetch } = await app();
    expect((await errorOf(await fetch(path), 404)).message).not.toContain(folder);
  });
});

describe("without a console", () => {
  it("a page says why, and the rest is 404", async () => {
    const missing = "the web console is not built: run 'npm run build'";
    const { fetch } = await testApp(undefined, { console: () => ({ missing }) });
    const page = await fetch("/");
    expect(page.status).toBe(200);
    expect(page.headers.get("content-type")).toContain("text/plain");
    expect(await page.text()).toContain(missing);
    await errorOf(await fetch("/index.html"), 404);
  });

  it("a folder that has gone is 404", async () => {
    const { fetch } = await testApp(undefined, { console: { dir: join(folder, "nowhere") } });
    await errorOf(await fetch("/"), 404);
  });
});
