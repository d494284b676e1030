// Runs clusters' own programs: short ones for their answer, long ones whose life is the job's.

import { type ChildProcess, spawn } from "node:child_process";
import { LaunchError } from "../errors.ts";
import type { Launched } from "./launcher.ts";

/** What a program came to. */
export interface ProgramResult {
  readonly code: number;
  readonly stdout: string;
  readonly stderr: string;
}

const tailLength = 4_000;
const askMs = 60_000;

/** Runs a program to its end. @throws LaunchError if it cannot be started or does not end */
export async function ask(
  launcher: string,
  words: readonly string[],
  input = "",
): Promise<ProgramResult> {
  const [program = "", ...rest] = words;
  const child = spawn(program, rest, { stdio: ["pipe", "pipe", "pipe"], timeout: askMs });
  let stdout = "";
  let stderr = "";
  child.stdout.on("data", (bytes: Buffer) => {
    stdout += bytes;
  });
  child.stderr.on("data", (bytes: Buffer) => {
    stderr += bytes;
  });
  // A program that does not read its input has its reasons.
  child.stdin.on("error", () => {});
  child.stdin.end(input);
  return await new Promise((resolve, reject) => {
    child.once("error", (error) => reject(notStarted(launcher, program, error)));
    child.once("close", (code) => resolve({ code: code ?? 1, stdout, stderr }));
  });
}

/** Runs a program to its end and gives its output. @throws LaunchError if it fails */
export async function expectAnswer(
  launcher: string,
  words: readonly string[],
  input?: string,
): Promise<string> {
  const { code, stdout, stderr } = await ask(launcher, words, input);
  if (code === 0) return stdout;
  const said = (stderr.trim() || stdout.trim()).slice(-tailLength);
  throw new LaunchError(launcher, `${words[0]} ended with code ${code}: ${said}`);
}

function notStarted(launcher: string, program: string, error: Error): LaunchError {
  return new LaunchError(launcher, `${program} could not be started: ${error.message}`, {
    cause: error,
  });
}

/** A program whose end is the executors' end; told to end by a signal, to it and its children. */
export async function runProgram(
  launcher: string,
  words: readonly string[],
  environment: Readonly<Record<string, string>> = {},
): Promise<Launched> {
  const [program = "", ...rest] = words;
  // A group of its own, so that a Ctrl-C meant for the script does not end it before the job does.
  const child: ChildProcess = spawn(program, rest, {
    stdio: ["ignore", "pipe", "pipe"],
    detached: true,
    env: { ...process.env, ...environment },
  });
  let tail = "";
  const keep = (bytes: Buffer): void => {
    tail = (tail + bytes.toString()).slice(-tailLength);
  };
  child.stdout?.on("data", keep);
  child.stderr?.on("data", keep);
  await new Promise<void>((resolve, reject) => {
    child.once("spawn", resolve);
    child.once("error", (error) => reject(notStarted(launcher, program, error)));
  });
  let over = false;
  const ended = new Promise<string>((resolve) => {
    child.once("close", (code, signal) => {
      over = true;
      const said = tail.trim();
      resolve(`${program} ended with ${signal ?? `code ${code}`}${said ? `:\n${said}` : ""}`);
    });
  });
  return {
    label: `${program} (process ${child.pid})`,
    describe: async () => `${program} runs as process ${child.pid}${tail ? `:\n${tail}` : ""}`,
    ended,
    stop: async () => {
      if (over) return;
      signalGroup(child, "SIGTERM");
      const timer = setTimeout(() => signalGroup(child, "SIGKILL"), 5_000);
      await ended;
      clearTimeout(timer);
    },
  };
}

function signalGroup(child: ChildProcess, signal: NodeJS.Signals): void {
  try {
    process.kill(-(child.pid as number), signal);
  } catch {
    // It has ended meanwhile.
  }
}

/** Several programs as one. */
export function together(label: string, parts: readonly Launched[]): Launched {
  return {
    label,
    describe: async () =>
      (await Promise.all(parts.map((part) => part.describe()))).join("\n").slice(-tailLength),
    ended: Promise.all(parts.map(({ ended }) => ended)).then((reasons) =>
      [...new Set(reasons)].join("\n").slice(-tailLength),
    ),
    stop: async () => void (await Promise.all(parts.map((part) => part.stop()))),
  };
}
