// Every package, packed as npm would publish it, installs into an empty folder and runs from plain
// JavaScript under the pinned Node, without this repository, TypeScript or the source condition.

import { execFileSync, spawn } from "node:child_process";
import { mkdtempSync, readdirSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { fileURLToPath } from "node:url";
import { publint } from "publint";
import { formatMessage } from "publint/utils";
import { afterAll, beforeAll, describe, expect, it } from "vitest";

const root = fileURLToPath(new URL("../..", import.meta.url));
const workspaces = readdirSync(join(root, "packages")).filter((name) => {
  const manifest = JSON.parse(readFileSync(join(root, "packages", name, "package.json"), "utf8"));
  return manifest.private !== true;
});
const npmEnv = { ...process.env, NODE_OPTIONS: "", npm_config_loglevel: "error" };

function npm(args: readonly string[], cwd: string): string {
  return execFileSync("npm", args, { cwd, env: npmEnv, encoding: "utf8", stdio: "pipe" });
}

describe("packed packages", () => {
  let folder = "";

  beforeAll(() => {
    folder = mkdtempSync(join(tmpdir(), "open-infra-pack-"));
    npm(["run", "build"], root);
    const names = workspaces.flatMap((name) => ["-w", `packages/${name}`]);
    npm(["pack", "--ignore-scripts", "--pack-destination", folder, ...names], root);
    const tarballs = readdirSync(folder).filter((file) => file.endsWith(".tgz"));
    writeFileSync(join(folder, "package.json"), '{"name":"empty","private":true,"type":"module"}');
    npm(
      [
        "install",
        "--prefer-offline",
        "--ignore-scripts",
        "--no-audit",
        ...tarballs.map((t) => `./${t}`),
      ],
      folder,
    );
  }, 300_000);

  afterAll(() => {
    if (folder) rmSync(folder, { recursive: true, force: true });
  });

  it.each(workspaces)("%s passes publint", async (name) => {
    const { messages, pkg } = await publint({ pkgDir: join(root, "packages", name), strict: true });
    expect(messages.map((message) => formatMessage(message, pkg))).toEqual([]);
  });

  it.each(workspaces)("%s imports", (name) => {
    const script =
      `const m = await import("@open-infra/${name}");` +
      `process.stdout.write(String(Object.keys(m).length));`;
    const out = execFileSync(process.execPath, ["--input-type=module", "-e", script], {
      cwd: folder,
      encoding: "utf8",
    });
    expect(Number(out)).toBeGreaterThan(0);
  });

  it("multiplies matrices through an installed deep-gemm", () => {
    const script = `
      import { bf16GemmNt } from "@open-infra/deep-gemm";
      import { createDevice } from "@open-infra/jit";
      import { Tensor } from "@open-infra/tensor";
      using device = createDevice({ threads: 1 });
      const a = Tensor.from([1, 2, 3, 4], [2, 2], "bf16");
      const b = Tensor.from([5, 6, 7, 8], [2, 2], "bf16");
      const d = Tensor.empty([2, 2], "f32");
      bf16GemmNt(device, { a, b, d });
      process.stdout.write(JSON.stringify([...d.raw()]));`;
    const out = execFileSync(process.execPath, ["--input-type=module", "-e", script], {
      cwd: folder,
      encoding: "utf8",
    });
    expect(JSON.parse(out)).toEqual([17, 23, 39, 53]);
  });

  it("serves the demo model through the installed command", async () => {
    const bin = join(folder, "node_modules/.bin/open-infra");
    const server = spawn(process.execPath, [bin, "serve", "--port", "0"], { cwd: folder });
    let log = "";
    try {
      const url = await new Promise<string>((resolve, reject) => {
        const read = (chunk: Buffer): void => {
          log += chunk.toString();
          const found = /http:\/\/127\.0\.0\.1:\d+/.exec(log);
          if (found && /ready/.test(log)) resolve(found[0]);
        };
        server.stdout.on("data", read);
        server.stderr.on("data", read);
        server.on("exit", (code) => reject(new Error(`the server ended with ${code}:\n${log}`)));
      });
      const response = await fetch(`${url}/v1/completions`, {
        method: "POST",
        headers: { "content-type": "application/json" },
        body: JSON.stringify({
          model: "demo",
          prompt: "def fibonacci(n):\n",
          max_tokens: 16,
          temperature: 0,
        }),
      });
      const body = (await response.json()) as { choices: { text: string }[] };
      expect(body.choices[0]?.text).toContain("Same as a public");
      expect(await (await fetch(`${url}/`)).text()).toContain("<title>");
    } finally {
      server.removeAllListeners("exit");
      server.kill("SIGTERM");
      await new Promise((resolve) => server.once("exit", resolve));
    }
  }, 120_000);
});
