// The system's vector headers take longer to read than many a kernel takes to compile, and are the
// same for all kernels. From the second kernel on that a cache compiles, they are kept beside the
// entries in the form the compiler reads fastest. gcc only: it leaves a form that does not fit its
// version or flags alone and reads the text, so that a stale one costs time and nothing else.

import { existsSync, readFileSync, renameSync, rmSync } from "node:fs";
import { join } from "node:path";
import type { Command, Outcome } from "./build.ts";
import type { Compiler } from "./compiler.ts";
import { cacheProblem, makeBuildDir, sha256, writeDurably } from "./entry.ts";

/** What kernels for x86 begin with. */
const text = `#include <stdint.h>
#include <string.h>
#include <stdatomic.h>
#include <stddef.h>
#include <immintrin.h>
`;

const headerFile = "header.h";
const compiledFile = `${headerFile}.gch`;
const checksumFile = `${compiledFile}.sha256`;

/** Directories of precompiled headers in a cache. */
export const headerPattern: RegExp = /^header-[0-9a-f]{64}$/;

/** The precompiled header of one compiler and set of flags. */
export class PrecompiledHeader {
  readonly #compiler: Compiler;
  readonly #flags: readonly string[];
  readonly #cacheDir: string;
  readonly #name: string;
  #compiles = 0;
  #state: "unknown" | "building" | "there" | "never" = "unknown";

  constructor(compiler: Compiler, identity: string, flags: readonly string[], cacheDir: string) {
    this.#compiler = compiler;
    this.#flags = flags;
    this.#cacheDir = cacheDir;
    const content = JSON.stringify([identity, flags, text]);
    this.#name = `header-${sha256(new TextEncoder().encode(content))}`;
    if (!/\bgcc version\b/.test(compiler.version)) this.#state = "never";
  }

  /**
   * Arguments that make a compile of `source` begin with the header; none where it is of no use.
   * Yields the command that makes the header, and wants its outcome back.
   */
  *argumentsFor(source: string): Generator<Command, readonly string[], Outcome> {
    if (this.#state === "never" || !source.includes("<immintrin.h>")) return [];
    const dir = join(this.#cacheDir, this.#name);
    if (this.#state === "unknown" && isSound(dir)) this.#state = "there";
    // One kernel alone is compiled sooner without it.
    const first = this.#compiles++ === 0;
    if (this.#state === "unknown" && !first) yield* this.#make(dir);
    return this.#state === "there" ? ["-include", join(dir, headerFile)] : [];
  }

  /** Takes note that it was of no use: it may be gone, or gcc may not like it after all. */
  giveUp(): void {
    this.#state = "never";
  }

  *#make(dir: string): Generator<Command, void, Outcome> {
    this.#state = "building";
    const build = makeBuildDir(this.#cacheDir, this.#name);
    try {
      writeDurably(join(build, headerFile), text);
      const flags = this.#flags.filter((flag) => flag !== "-shared");
      const args = [...this.#compiler.words, ...flags, "-x", "c-header", headerFile];
      const made = yield {
        dir: build,
        program: this.#compiler.path,
        args: [...args, "-o", compiledFile],
      };
      this.#state = "never";
      if (made.status !== 0 || !existsSync(join(build, compiledFile))) return;
      const checksum = sha256(readFileSync(join(build, compiledFile)));
      writeDurably(join(build, checksumFile), checksum);
      // What is there and not sound goes; another process may be faster than this one.
      rmSync(dir, { recursive: true, force: true });
      try {
        renameSync(build, dir);
      } catch (error) {
        const { code } = error as NodeJS.ErrnoException;
        if (code !== "ENOTEMPTY" && code !== "EEXIST") throw cacheProblem(this.#cacheDir, error);
      }
      if (isSound(dir)) this.#state = "there";
    } finally {
      if (this.#state === "building") this.#state = "never";
      rmSync(build, { recursive: true, force: true });
    }
  }
}

/** Whether the header is there and whole; asked once a process. */
function isSound(dir: string): boolean {
  try {
    const checksum = readFileSync(join(dir, checksumFile), "utf8");
    return sha256(readFileSync(join(dir, compiledFile))) === checksum;
  } catch {
    return false; // Not there, or not readable: then it is made anew, or done without.
  }
}
