// `open-infra doctor`: what this machine has, what is missing, and how to get it.

import { accessSync, constants, mkdirSync, statfsSync } from "node:fs";
import { availableParallelism, freemem, release, totalmem } from "node:os";
import { consoleDir } from "@open-infra/console";
import {
  createDevice,
  findCompiler,
  jitCacheDir,
  type MachineLimits,
  measureMachine,
} from "@open-infra/jit";
import { hasRdma, hasUcx } from "@open-infra/ranks";
import { type CliContext, printJson, printLine } from "../context.ts";
import { formatBytes } from "../progress.ts";

type Level = "ok" | "missing" | "note";

interface Finding {
  readonly level: Level;
  readonly subject: string;
  readonly fact: string;
  /** What to do about it. */
  readonly advice?: string;
}

interface Flags {
  readonly json: boolean;
}

function checkNode(): Finding {
  return {
    level: "ok",
    subject: "node",
    fact: `${process.versions.node} on ${process.platform}-${process.arch} (${release()})`,
  };
}

function checkMemory(): Finding {
  return {
    level: freemem() < 2 ** 30 ? "note" : "ok",
    subject: "memory",
    fact:
      `${formatBytes(totalmem())}, ${formatBytes(freemem())} free; ` +
      `${availableParallelism()} cores`,
  };
}

function checkCompiler(): Finding {
  const compiler = findCompiler();
  if (compiler !== undefined) return { level: "ok", subject: "compiler", fact: compiler.version };
  return {
    level: "missing",
    subject: "compiler",
    fact: "no C compiler (CC, cc, gcc, clang): everything runs on the slow reference backend",
    advice:
      "Debian: apt-get install gcc libc6-dev; Fedora: dnf install gcc; " +
      "macOS: xcode-select --install",
  };
}

function checkCache(): Finding {
  const dir = jitCacheDir();
  try {
    mkdirSync(dir, { recursive: true });
    accessSync(dir, constants.W_OK);
    const { bavail, bsize } = statfsSync(dir);
    return {
      level: "ok",
      subject: "kernel cache",
      fact: `${dir}, ${formatBytes(bavail * bsize)} free`,
    };
  } catch (error) {
    return {
      level: "missing",
      subject: "kernel cache",
      fact: `${dir} is not writable: ${(error as Error).message}`,
      advice: "set OPEN_INFRA_JIT_CACHE_DIR to a folder you can write to",
    };
  }
}

function checkConsole(): Finding {
  const found = consoleDir();
  if ("dir" in found) return { level: "ok", subject: "web console", fact: "built" };
  return { level: "note", subject: "web console", fact: found.missing, advice: "npm run build" };
}

function checkLinks(): Finding {
  const subject = "links";
  if (!hasUcx()) {
    const fact = "TCP between hosts; no libucp.so.0 for transport ucx";
    return { level: "note", subject, fact, advice: "Debian: apt-get install libucx0" };
  }
  const rdma = hasRdma() ? "InfiniBand or RoCE: ranks take UCX" : "no RDMA: ranks take TCP";
  return { level: "ok", subject, fact: `TCP and UCX between hosts; ${rdma} unless told otherwise` };
}

function describeLimits(m: MachineLimits): string {
  const bf16 = m.bf16Instruction ? "by its own instruction" : "widened to f32";
  const tiles = m.tiles && `, ${m.tiles.bf16Gflops.toFixed(0)} by AMX tiles`;
  return (
    `f32 ${m.f32Gflops.toFixed(0)} GFLOP/s (${m.f32GflopsPerThread.toFixed(0)} a thread), ` +
    `bf16 ${m.bf16Gflops.toFixed(0)} GFLOP/s (${bf16}${tiles ?? ""}), ` +
    `reads ${m.readGBs.toFixed(1)} GB/s (${m.readGBsPerThread.toFixed(1)} one thread)`
  );
}

function checkBackend(): readonly Finding[] {
  if (findCompiler() === undefined) {
    return [{ level: "note", subject: "backend", fact: "reference (plain TypeScript)" }];
  }
  try {
    using device = createDevice({ backend: "cpu" });
    const m = measureMachine(device);
    return [
      { level: "ok", subject: "backend", fact: device.description },
      { level: "ok", subject: "limits", fact: describeLimits(m) },
    ];
  } catch (error) {
    // The cache is checked on its own; whatever else stops a device is a finding, not a crash.
    return [{ level: "missing", subject: "backend", fact: (error as Error).message }];
  }
}

export default function doctor(this: CliContext, flags: Flags): void {
  const findings = [
    checkNode(),
    checkMemory(),
    checkCompiler(),
    ...checkBackend(),
    checkCache(),
    checkLinks(),
    checkConsole(),
  ];
  const healthy = findings.every((finding) => finding.level !== "missing");
  if (flags.json) {
    printJson(this, { healthy, findings });
  } else {
    const mark: Record<Level, string> = { ok: "ok     ", missing: "MISSING", note: "note   " };
    for (const { level, subject, fact, advice } of findings) {
      printLine(this, `${mark[level]} ${subject.padEnd(13)} ${fact}`);
      if (advice) printLine(this, `${" ".repeat(22)}→ ${advice}`);
    }
  }
  if (!healthy) this.process.exitCode = 1;
}
