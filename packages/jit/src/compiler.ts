// Finds the C compiler and learns who it is: its version and target, never its path, so that one
// cache serves machines that keep the same compiler in different places. What is compiled, and with
// which flags, is decided in build.ts and isa.ts.

import { spawnSync } from "node:child_process";
import { allIsaFlags } from "./isa-flags.ts";
import { type JitOptions, readJitOptions } from "./options.ts";

/** A C compiler that runs. */
export interface Compiler {
  /** The program, or the wrapper in front of it (`ccache`). */
  readonly path: string;
  /** Words before the flags: what follows a wrapper, and arguments given in CC. */
  readonly words: readonly string[];
  /** One line, e.g. `gcc version 12.2.0 (Debian 12.2.0-14)`. */
  readonly version: string;
  /** Target triple, e.g. `x86_64-linux-gnu`. */
  readonly target: string;
  /** The instruction-set flags of this architecture that it knows. */
  readonly isaFlags: ReadonlySet<string>;
}

/** A compiler, or for each command tried the reason why it will not do. */
export interface CompilerSearch {
  readonly compiler: Compiler | undefined;
  readonly tried: readonly string[];
}

/**
 * The C compiler to use: CC, else the first of cc, gcc, clang that runs; undefined if none does.
 */
export function findCompiler(options?: Pick<JitOptions, "cc">): Compiler | undefined {
  return searchCompiler(options).compiler;
}

/** As {@link findCompiler}, with the reasons. */
export function searchCompiler(options?: Pick<JitOptions, "cc">): CompilerSearch {
  const { cc } = options ?? readJitOptions();
  const tried: string[] = [];
  for (const command of cc === undefined ? ["cc", "gcc", "clang"] : [cc]) {
    const result = inspect(splitCommand(command));
    if (typeof result !== "string") return { compiler: result, tried };
    tried.push(`${cc === undefined ? "" : "CC="}${command}: ${result}`);
  }
  return { compiler: undefined, tried };
}

/** Who this compiler is, for cache keys: no paths. */
export function compilerIdentity(compiler: Compiler): string {
  const args = compiler.words.filter((word) => word.startsWith("-"));
  return [compiler.version, compiler.target, ...args].join(" | ");
}

/** Splits a command line at blanks; single and double quotes hold words together. */
export function splitCommand(command: string): string[] {
  const words = command.match(/(?:[^\s"']|"[^"]*"|'[^']*')+/g) ?? [];
  return words.map((word) => word.replace(/"([^"]*)"|'([^']*)'/g, "$1$2"));
}

/** Architecture names in target triples, by Node's name for them. */
const triples: Readonly<Record<string, RegExp>> = { x64: /^x86_64/, arm64: /^(aarch64|arm64)/ };

function inspect(command: readonly string[]): Compiler | string {
  const [path, ...words] = command;
  if (path === undefined) return "is empty";
  const candidates = allIsaFlags(process.arch);
  // One run tells the version, the target and whether all instruction-set flags are known.
  let asked = ask(path, words, candidates);
  let known = candidates;
  if (!asked.ok) {
    asked = ask(path, words, []);
    if (!asked.ok) return asked.output;
    known = candidates.filter((flag) => ask(path, words, [flag]).ok);
  }
  const target = /^Target: (\S+)/m.exec(asked.output)?.[1] ?? "unknown";
  const wanted = triples[process.arch];
  if (wanted !== undefined && target !== "unknown" && !wanted.test(target)) {
    return `makes code for ${target}, but this process runs on ${process.arch}`;
  }
  const version = /^.*(?:gcc|clang) version .*$/im.exec(asked.output)?.[0].trim();
  if (version === undefined) return "is neither gcc nor clang";
  return { path, words, version, target, isaFlags: new Set(known) };
}

function ask(
  path: string,
  words: readonly string[],
  flags: readonly string[],
): { readonly ok: boolean; readonly output: string } {
  const args = [...words, ...flags, "-v", "-Werror", "-fsyntax-only", "-x", "c", "/dev/null"];
  const run = spawnSync(path, args, {
    encoding: "utf8",
    timeout: 60_000,
    // Messages are parsed, so they must not be translated.
    env: { ...process.env, LC_ALL: "C", LANGUAGE: "C" },
  });
  if (run.error !== undefined) {
    const missing = (run.error as NodeJS.ErrnoException).code === "ENOENT";
    return { ok: false, output: missing ? "not found" : run.error.message };
  }
  const output = `${run.stdout}${run.stderr}`;
  if (run.status === 0) return { ok: true, output };
  const error = output.split("\n").find((line) => line.includes("error")) ?? `exit ${run.status}`;
  return { ok: false, output: error.trim() };
}
