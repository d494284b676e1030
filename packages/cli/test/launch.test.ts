// `open-infra launch`: environment, output, the first failure, signals, and that nothing survives.

import type { ChildProcess } from "node:child_process";
import { existsSync, readFileSync } from "node:fs";
import { fileURLToPath } from "node:url";
import { findCompiler } from "@open-infra/jit";
import { requirement } from "@open-infra/testing";
import { describe, expect, it } from "vitest";
import { runCli, startCli } from "./run-cli.ts";

const script = fileURLToPath(new URL("./launch/rank.ts", import.meta.url));
const compiler = findCompiler() !== undefined || "no C compiler (apt-get install gcc libc6-dev)";
const linux = process.platform === "linux" || "needs Linux";

/** Text that a process prints, as it comes. */
function collect(child: ChildProcess): {
  text: () => string;
  until: (pattern: RegExp) => Promise<void>;
} {
  let text = "";
  const take = (chunk: Buffer): void => {
    text += chunk.toString();
  };
  child.stdout?.on("data", take);
  child.stderr?.on("data", take);
  return {
    text: () => text,
    async until(pattern) {
      const end = performance.now() + 30_000;
      while (!pattern.test(text)) {
        if (performance.now() > end) throw new Error(`${pattern} did not come in:\n${text}`);
        await new Promise((resolve) => setTimeout(resolve, 20));
      }
    },
  };
}

function isRunning(pid: number): boolean {
  if (!existsSync(`/proc/${pid}/stat`)) return false;
  return !/\) [ZX] /.test(readFileSync(`/proc/${pid}/stat`, "utf8"));
}

async function untilGone(pids: readonly number[]): Promise<void> {
  const end = performance.now() + 10_000;
  while (pids.some(isRunning)) {
    if (performance.now() > end) throw new Error(`still running: ${pids.filter(isRunning)}`);
    await new Promise((resolve) => setTimeout(resolve, 20));
  }
}

function pidsIn(text: string): number[] {
  return [...text.matchAll(/joined \d+ (\d+)/g)].map(([, pid]) => Number(pid));
}

describe("launch", () => {
  it("tells each rank who it is, and marks its lines", async () => {
    const args = ["launch", "--nproc-per-node", "3", "--prefix", "--", script, "environment"];
    const { code, stdout, stderr } = await runCli(args);
    expect(stderr).toBe("");
    expect(code).toBe(0);
    const lines = stdout.trim().split("\n").sort();
    expect(lines).toEqual(
      [0, 1, 2].map(
        (i) =>
          `[${i}] RANK=${i} LOCAL_RANK=${i} WORLD_SIZE=3 LOCAL_WORLD_SIZE=3 GROUP_RANK=0 ` +
          "MASTER_ADDR=127.0.0.1",
      ),
    );
  });

  it("runs any program, and passes its arguments on", async () => {
    const program = [
      "sh",
      "-c",
      "echo $RANK of $WORLD_SIZE: $1 >&2; exit $((RANK * 4))",
      "sh",
      "--x",
    ];
    const { code, stderr } = await runCli(["launch", "--nproc-per-node", "2", "--", ...program]);
    expect(stderr).toContain("0 of 2: --x");
    expect(stderr).toMatch(/rank 1 \(.*process \d+\) ended with exit status 4/);
    expect(code).toBe(4);
  });

  it("ends all when one fails, with its status and its name, in JSON too", async () => {
    const args = ["launch", "--nproc-per-node", "3", "--json", "--", script, "exit", "1"];
    const { code, stdout } = await runCli(args);
    expect(code).toBe(7);
    const result = JSON.parse(stdout);
    expect(result).toMatchObject({
      exitStatus: 7,
      worldSize: 3,
      failure: { rank: 1, exitCode: 7 },
    });
    expect(result.ranks).toHaveLength(3);
    expect(result.ranks[0]).toMatchObject({ rank: 0, signal: "SIGTERM" });
  });

  it("kills a rank that does not end when it is asked to", async () => {
    const args = [
      "launch",
      "--nproc-per-node",
      "2",
      "--json",
      "--grace",
      "0.5",
      "--",
      script,
      "stubborn",
      "0",
    ];
    const { code, stdout } = await runCli(args);
    expect(code).toBe(3);
    expect(JSON.parse(stdout).ranks[1]).toMatchObject({ rank: 1, signal: "SIGKILL" });
  }, 30_000);

  it("says what cannot be, and starts nothing", async () => {
    const missing = await runCli(["launch", "--nnodes", "2", "--", script, "environment"]);
    expect(missing.code).toBe(2);
    expect(missing.stderr).toContain("--master-addr");
    const address = ["--master-addr", "127.0.0.1"];
    const secret = await runCli([
      "launch",
      "--nnodes",
      "2",
      ...address,
      "--",
      script,
      "environment",
    ]);
    expect(secret.code).toBe(2);
    expect(secret.stderr).toContain("OPEN_INFRA_SECRET");
    const none = await runCli(["launch", "--", "./no-such-program"]);
    expect(none.code).toBe(127);
    expect(none.stderr).toContain("no-such-program");
  });
});

describe.skipIf(requirement("launch of ranks that join", compiler))(
  "launch of ranks that join",
  () => {
    it("reports what a rank threw, not what the others made of it", async () => {
      const args = ["launch", "--nproc-per-node", "3", "--json", "--", script, "throw", "2"];
      const { code, stdout } = await runCli(args);
      expect(code).toBe(1);
      const { failure } = JSON.parse(stdout);
      expect(failure).toMatchObject({ rank: 2, errorName: "TypeError" });
      expect(failure.message).toContain("the rank's own mistake");
    });

    it.skipIf(requirement("launch: a killed rank", linux))(
      "ends all when a rank is killed, whatever the others wait in",
      async () => {
        const child = startCli(["launch", "--nproc-per-node", "3", "--", script, "barriers"]);
        const output = collect(child);
        const code = new Promise((resolve) => child.once("close", resolve));
        await output.until(/(joined[\s\S]*){3}/);
        const victim = /joined 1 (\d+)/.exec(output.text())?.[1];
        process.kill(Number(victim), "SIGKILL");
        expect(await code).toBe(128 + 9);
        expect(output.text()).toMatch(/rank 1 \(.*\) ended by SIGKILL/);
        await untilGone(pidsIn(output.text()));
      },
    );

    it
      .skipIf(requirement("launch: a killed launcher", linux))
      .each(["SIGKILL", "SIGTERM"] as const)(
      "leaves no rank behind when the launcher gets %s",
      async (signal) => {
        const child = startCli(["launch", "--nproc-per-node", "2", "--", script, "barriers"]);
        const output = collect(child);
        const code = new Promise((resolve) => child.once("exit", resolve));
        await output.until(/(joined[\s\S]*){2}/);
        child.kill(signal);
        expect(await code).toBe(signal === "SIGKILL" ? null : 128 + 15);
        await untilGone(pidsIn(output.text()));
      },
    );

    it("meets across two launchers, and says when they do not agree", async () => {
      const env = { OPEN_INFRA_SECRET: "of the launch test" };
      const port = `${20_000 + (process.pid % 20_000)}`;
      const head = ["--nnodes", "2", "--master-addr", "127.0.0.1", "--master-port", port];
      const node = (
        rank: number,
        count: number,
      ): Promise<{ code: number | null; stderr: string }> =>
        runCli(
          [
            ...["launch", ...head, "--node-rank", `${rank}`, "--nproc-per-node", `${count}`],
            ...["--timeout", "20", "--", script, "join"],
          ],
          env,
        );
      const good = await Promise.all([node(0, 2), node(1, 2)]);
      expect(good.map(({ code }) => code)).toEqual([0, 0]);
      const bad = await Promise.all([node(0, 2), node(1, 1)]);
      expect(bad[0]?.code).not.toBe(0);
      expect(bad[1]?.code).toBe(2);
      expect(bad[1]?.stderr).toContain("ranksPerNode");
    }, 60_000);
  },
);
