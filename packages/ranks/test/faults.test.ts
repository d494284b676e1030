// Ranks that are killed, stopped, cut off, refused memory: all ends within its time, says who was
// to blame and what for, and leaves nothing behind.

import { spawn } from "node:child_process";
import { readdirSync, readFileSync } from "node:fs";
import { fileURLToPath } from "node:url";
import { findCompiler } from "@open-infra/jit";
import {
  type ProcessesOptions,
  RankDeadError,
  RanksSystemError,
  RankTimeoutError,
  runProcesses,
  runThreads,
} from "@open-infra/ranks";
import { requirement } from "@open-infra/testing";
import { describe, expect, it } from "vitest";
import type { Phase, VictimData } from "./ranks/victim.ts";

const met =
  process.platform !== "linux"
    ? "the faults of processes are made by Linux's means"
    : findCompiler() !== undefined || "no C compiler (apt-get install gcc libc6-dev)";
const skip = requirement("faults of ranks", met);
const module = new URL("./ranks/victim.ts", import.meta.url);

/** Whether a process runs; a zombie does not. */
function runs(pid: number): boolean {
  try {
    return !/\) [ZX] /.test(readFileSync(`/proc/${pid}/stat`, "utf8"));
  } catch {
    return false;
  }
}

async function until(condition: () => boolean, limitMs: number): Promise<boolean> {
  const end = performance.now() + limitMs;
  while (!condition() && performance.now() < end) {
    await new Promise((resolve) => setTimeout(resolve, 20));
  }
  return condition();
}

/** Shared memory of ranks that this process still maps. */
function mappedRegions(): string[] {
  const maps = readFileSync("/proc/self/maps", "utf8").split("\n");
  return maps.filter((line) => line.includes("open-infra-ranks"));
}

const named = (): string[] =>
  readdirSync("/dev/shm").filter((name) => /^oi-|open-infra/.test(name));

interface Ending {
  readonly error: unknown;
  readonly ms: number;
  readonly pids: readonly number[];
}

async function end(data: VictimData, options: Partial<ProcessesOptions> = {}): Promise<Ending> {
  const pids: number[] = [];
  const start = performance.now();
  const onStart = (pid: number): void => void pids.push(pid);
  const error = await runProcesses({
    ...{ size: 3, data, module, timeoutMs: 30_000, onStart },
    ...options,
  }).catch((thrown: unknown) => thrown);
  return { error, ms: performance.now() - start, pids };
}

describe.skipIf(skip)("kill -9 of a rank", () => {
  const phases: readonly (readonly [Phase, string, number])[] = [
    ["kernel", "wait_for_ever", 0],
    ["queued kernel", "wait_for_ever", 1],
    ["barrier", "barrier", 2],
    ["recv", "recv", 1],
    ["recvSync", "recv", 0],
    ["computing", "wait_for_ever", 2],
  ];

  it.each(phases)(
    "in its %s ends all others, whose errors name it",
    { timeout: 60_000 },
    async (phase, operation, victim) => {
      const { error, ms, pids } = await end({ victim, signal: "KILL", phase });
      expect(error).toBeInstanceOf(RankDeadError);
      const dead = error as RankDeadError;
      expect({ peer: dead.peer, operation: dead.operation }, dead.message).toEqual({
        ...{ peer: victim, operation },
      });
      const pid = pids[victim];
      expect(dead.message).toMatch(new RegExp(`rank ${victim} \\(.*process ${pid}\\) is gone`));
      expect(dead.message).toContain("by SIGKILL");
      expect(ms).toBeLessThan(29_000);
      expect(pids.filter(runs)).toEqual([]);
      expect(mappedRegions()).toEqual([]);
      expect(named()).toEqual([]);
    },
  );

  it("before it has joined ends the others' joining", { timeout: 60_000 }, async () => {
    const pids: number[] = [];
    const onStart = (pid: number): void => {
      pids.push(pid);
      if (pids.length === 2) process.kill(pid, "SIGKILL");
    };
    const { error, ms } = await end({ victim: 0, signal: "none", phase: "kernel" }, { onStart });
    expect(error).toBeInstanceOf(RankDeadError);
    expect((error as RankDeadError).peer).toBe(1);
    expect((error as Error).message).toContain("by SIGKILL");
    expect(ms).toBeLessThan(29_000);
    expect(pids.filter(runs)).toEqual([]);
  });

  it("takes the other threads of its process with it", { timeout: 60_000 }, async () => {
    const data: VictimData = { victim: 2, signal: "KILL", phase: "kernel" };
    const { error, pids } = await end(data, { size: 4, ranksPerProcess: 2 });
    expect(error).toBeInstanceOf(RankDeadError);
    expect([2, 3]).toContain((error as RankDeadError).peer);
    expect(pids.filter(runs)).toEqual([]);
  });
});

describe.skipIf(skip)("a rank that does not go on", () => {
  it("because it is stopped is named with what it was in", { timeout: 60_000 }, async () => {
    const data: VictimData = { victim: 1, signal: "STOP", phase: "computing" };
    const { error, pids } = await end(data, { timeoutMs: 2500 });
    expect(error).toBeInstanceOf(RankTimeoutError);
    const late = error as RankTimeoutError;
    expect(late.peer, late.message).toBe(1);
    expect(late.message).toMatch(/from rank 1 \(.*\), which was last in a forward pass/);
    expect(await until(() => !pids.some(runs), 5000)).toBe(true);
  });

  it("because its JavaScript loops is ended by force", { timeout: 60_000 }, async () => {
    const data: VictimData = { victim: 1, signal: "none", phase: "loop" };
    const error = await runThreads({ size: 3, data, module, timeoutMs: 800 }).catch((e) => e);
    expect(error).toBeInstanceOf(RankTimeoutError);
    expect(mappedRegions()).toEqual([]);
  });
});

describe.skipIf(skip)("whoever starts ranks", () => {
  it("takes them along when it is killed", { timeout: 60_000 }, async () => {
    const program = fileURLToPath(new URL("./ranks/launcher.ts", import.meta.url));
    const args = ["--conditions=@open-infra/source", program];
    const launcher = spawn(process.execPath, args, { stdio: ["ignore", "pipe", "inherit"] });
    let text = "";
    launcher.stdout.on("data", (chunk) => {
      text += chunk;
    });
    const pids = (): number[] => text.trim().split("\n").map(Number);
    try {
      expect(await until(() => text.trim().split("\n").length === 2, 20_000)).toBe(true);
      // In the middle of joining or in the kernel, wherever they have come to.
      await new Promise((resolve) => setTimeout(resolve, 1500));
      expect(pids().every(runs)).toBe(true);
    } finally {
      launcher.kill("SIGKILL");
    }
    expect(await until(() => !pids().some(runs), 10_000)).toBe(true);
  });

  it.each(["threads", "processes"])(
    "can end them: %s that wait in native code",
    { timeout: 60_000 },
    async (kind) => {
      const data: VictimData = { victim: 0, signal: "none", phase: "kernel" };
      const abort = new AbortController();
      const reason = new Error("changed my mind");
      setTimeout(() => abort.abort(reason), 1500);
      const run = kind === "threads" ? runThreads : runProcesses;
      const start = performance.now();
      const options = { size: 3, data, module, timeoutMs: 50_000, signal: abort.signal };
      await expect(run(options)).rejects.toBe(reason);
      expect(performance.now() - start).toBeLessThan(30_000);
      expect(mappedRegions()).toEqual([]);
    },
  );

  it("may exit whatever its ranks are in", { timeout: 60_000 }, async () => {
    const program = fileURLToPath(new URL("./ranks/quitter.ts", import.meta.url));
    const args = ["--conditions=@open-infra/source", program];
    const endings = [1, 2, 3].map(async () => {
      const quitter = spawn(process.execPath, args, { stdio: "inherit" });
      return new Promise((resolve) => {
        quitter.on("exit", (code, signal) => resolve(signal ?? code));
      });
    });
    expect(await Promise.all(endings)).toEqual([7, 7, 7]);
  });

  it("is not kept by what ranks leave behind", { timeout: 60_000 }, async () => {
    const options = { size: 2, module, export: "leavesThingsBehind", timeoutMs: 20_000 };
    expect(await runProcesses(options)).toEqual(["done", "done"]);
    expect(await runThreads(options)).toEqual(["done", "done"]);
  });
});

describe.skipIf(skip)("a group that goes on", () => {
  it("masks a rank that has died and meets without it", { timeout: 60_000 }, async () => {
    const options = { size: 4, module, timeoutMs: 20_000, onRankExit: "continue" } as const;
    for (const run of [runThreads, runProcesses]) {
      const results = await run({ ...options, export: "shrink" });
      const left = { texts: ["0", "1", "", "3"], state: "dead", live: [0, 1, 3], isMasked: true };
      expect(results).toEqual([left, left, undefined, left]);
    }
  });

  it("does without a rank that is masked", { timeout: 60_000 }, async () => {
    const options = { size: 3, module, timeoutMs: 20_000, onRankExit: "continue" } as const;
    const results = await runThreads({ ...options, export: "maskOne" });
    expect(results).toEqual([
      ["0", "", "2"],
      ["", "1", ""],
      ["0", "", "2"],
    ]);
  });

  it("tells who keeps it waiting", { timeout: 60_000 }, async () => {
    const options = { size: 3, module, timeoutMs: 20_000, export: "slowOne" } as const;
    const results = await runThreads<{ slow: number[]; text: string }>(options);
    for (const { slow } of results) expect(slow).toContain(1);
    expect(results[0]?.text).toMatch(/for rank 1 \(/);
  });
});

describe.skipIf(skip)("a system that refuses", () => {
  it("memory is a typed error", { timeout: 60_000 }, async () => {
    const options = { size: 2, module, export: "refused", data: 2 ** 52, timeoutMs: 20_000 };
    const error = await runThreads(options).catch((thrown: unknown) => thrown);
    expect(error).toBeInstanceOf(RanksSystemError);
    expect((error as Error).message).toMatch(/making \d+ bytes of shared memory failed: E[A-Z]+/);
  });

  it("descriptors is a typed error", { timeout: 60_000 }, async () => {
    const program = fileURLToPath(new URL("./ranks/descriptors.ts", import.meta.url));
    const node = `${process.execPath} --conditions=@open-infra/source ${program}`;
    const child = spawn("sh", ["-c", `ulimit -n 64; exec ${node}`], {
      stdio: ["ignore", "pipe", "pipe"],
    });
    let text = "";
    for (const stream of [child.stdout, child.stderr])
      stream.on("data", (chunk) => (text += chunk));
    await new Promise((resolve) => child.on("close", resolve));
    expect(text).toContain("RanksSystemError 24");
    expect(text).toContain("EMFILE");
  });
});
