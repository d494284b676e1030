// The build script: fresh output is left alone, concurrent builds leave one whole output, a failure
// speaks in one line and breaks an install no more than it must.

import { spawn } from "node:child_process";
import {
  cpSync,
  existsSync,
  mkdtempSync,
  readdirSync,
  readFileSync,
  rmSync,
  writeFileSync,
} from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { text } from "node:stream/consumers";
import { fileURLToPath, pathToFileURL } from "node:url";
import { consoleDir } from "@open-infra/console";
import { afterAll, beforeAll, describe, expect, it } from "vitest";
import { buildConsole } from "../build.ts";

const packageDir = fileURLToPath(new URL("..", import.meta.url));
let dir: string;

beforeAll(() => {
  dir = mkdtempSync(join(tmpdir(), "open-infra-console-"));
});

afterAll(() => {
  rmSync(dir, { recursive: true, force: true });
});

/** Runs the build script of a package folder, as npm's scripts do. */
async function runScript(
  folder: string,
  ...args: string[]
): Promise<{ readonly code: number | null; readonly out: string; readonly err: string }> {
  const child = spawn(process.execPath, [join(folder, "build.ts"), ...args], {
    stdio: ["ignore", "pipe", "pipe"],
  });
  const exit = new Promise<number | null>((resolve) => child.on("close", resolve));
  const [out, err, code] = await Promise.all([text(child.stdout), text(child.stderr), exit]);
  return { code, out, err };
}

describe("buildConsole", () => {
  it("writes assets that need nothing inline and no other host", async () => {
    const outDir = join(dir, "assets");
    expect((await buildConsole({ outDir })).outcome).toBe("built");
    const html = readFileSync(join(outDir, "index.html"), "utf8");
    expect(html).not.toMatch(/<script(?![^>]*\ssrc=)|<style|\son[a-z]+=|https?:/);
    const licenses = readFileSync(join(outDir, "licenses.md"), "utf8");
    for (const name of ["preact", "@preact/signals", "uplot"]) expect(licenses).toContain(name);
    for (const name of readdirSync(join(outDir, "assets"))) {
      const source = readFileSync(join(outDir, "assets", name), "utf8");
      expect(source, name).not.toMatch(/@import|url\(["']?(https?:)?\/\/|\beval\(|new Function\(/);
    }
  });

  it("returns at once when the output is fresh, and builds again when it is not", async () => {
    const outDir = join(dir, "stale");
    const first = await buildConsole({ outDir, ifStale: true });
    expect(first.outcome).toBe("built");
    expect(await buildConsole({ outDir, ifStale: true })).toEqual({ ...first, outcome: "fresh" });
    writeFileSync(join(outDir, ".build.json"), '{"hash":"another"}');
    expect((await buildConsole({ outDir, ifStale: true })).outcome).toBe("built");
    rmSync(join(outDir, "index.html"));
    expect((await buildConsole({ outDir, ifStale: true })).outcome).toBe("built");
  });

  it("leaves one whole output when several build at once", async () => {
    const outDir = join(dir, "concurrent");
    await Promise.all([1, 2, 3].map(() => buildConsole({ outDir })));
    expect(readdirSync(outDir).sort()).toEqual([
      ".build.json",
      "assets",
      "favicon.svg",
      "index.html",
      "licenses.md",
    ]);
    const html = readFileSync(join(outDir, "index.html"), "utf8");
    const [, script = ""] = /src="\.\/([^"]+)"/.exec(html) ?? [];
    expect(existsSync(join(outDir, script))).toBe(true);
    expect(readdirSync(dir).filter((name) => name.startsWith(".build-"))).toEqual([]);
  });
});

describe("build.ts as a script", () => {
  it("prints one line", async () => {
    const { code, out, err } = await runScript(packageDir, "--if-stale");
    expect({ code, err }).toEqual({ code: 0, err: "" });
    expect(out).toMatch(/^console: (built .+ in .+ s|.+ is up to date)\n$/);
    expect(consoleDir()).toHaveProperty("dir");
  });

  it("does not break an install when it cannot build, but fails a build", async () => {
    // A copy outside the repository finds none of the tools, as after `npm ci --omit=dev`.
    const folder = join(dir, "no-tools");
    cpSync(join(packageDir, "build.ts"), join(folder, "build.ts"));
    cpSync(join(packageDir, "web"), join(folder, "web"), { recursive: true });
    cpSync(join(packageDir, "package.json"), join(folder, "package.json"));
    const lenient = await runScript(folder, "--if-stale");
    expect(lenient.err).toMatch(/^console: not built, the API works without it: .*vite.*\n$/);
    expect(lenient.code).toBe(0);
    const strict = await runScript(folder);
    expect(strict.err).toContain("npm ci");
    expect(strict.code).toBe(1);
  });

  it("refuses an argument it does not know", async () => {
    const { code, err } = await runScript(packageDir, "--if-stail");
    expect(code).toBe(2);
    expect(err).toContain("--if-stail");
  });
});

describe("consoleDir", () => {
  it("says what to do where nothing is built", async () => {
    const folder = join(dir, "unbuilt");
    cpSync(join(packageDir, "src"), join(folder, "src"), { recursive: true });
    cpSync(join(packageDir, "package.json"), join(folder, "package.json"));
    const module = await import(pathToFileURL(join(folder, "src/index.ts")).href);
    expect(module.consoleDir().missing).toMatch(/not built .*npm run build/);
  });
});
