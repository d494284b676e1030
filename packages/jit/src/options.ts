// The environment of this package, read once at the edge into an options object; nothing else here
// looks at environment variables. The README documents them in one table.

import { homedir } from "node:os";
import { isAbsolute, join, resolve } from "node:path";
import { CacheError, JitOptionError } from "./errors.ts";
import { sanitizeVariable } from "./sanitize.ts";

/** How kernels are compiled and where they are kept. */
export interface JitOptions {
  /** Compiler command, arguments allowed. @default the first of cc, gcc, clang that works */
  readonly cc: string | undefined;
  /** Where compiled kernels are kept; created when first written. */
  readonly cacheDir: string;
  /** More caches, looked at in order after `cacheDir` and never written. */
  readonly readonlyCacheDirs: readonly string[];
  /** A narrower instruction set than the machine's best. */
  readonly isa: string | undefined;
  /** Log every hit, miss, wait and rebuild. */
  readonly debug: boolean;
  /** Log every compile command. */
  readonly printCommand: boolean;
  /** Write every loaded kernel's assembly to `<cacheDir>/asm/<key>.s`. */
  readonly dumpAsm: boolean;
  /** Build everything with AddressSanitizer and UBSan; see sanitize.ts. */
  readonly sanitize: boolean;
  readonly log: (line: string) => void;
}

type Environment = Readonly<Record<string, string | undefined>>;

/** Reads the environment. @throws JitOptionError for a switch that is neither 0 nor 1. */
export function readJitOptions(env: Environment = process.env): JitOptions {
  return {
    cc: env.CC?.trim() || undefined,
    cacheDir: cacheDirFrom(env),
    readonlyCacheDirs: (env.OPEN_INFRA_JIT_READONLY_CACHE_DIRS ?? "")
      .split(":")
      .filter((dir) => dir !== "")
      .map((dir) => resolve(dir)),
    isa: env.OPEN_INFRA_JIT_ISA || undefined,
    debug: readSwitch(env, "OPEN_INFRA_JIT_DEBUG"),
    printCommand: readSwitch(env, "OPEN_INFRA_JIT_PRINT_COMMAND"),
    dumpAsm: readSwitch(env, "OPEN_INFRA_JIT_DUMP_ASM"),
    sanitize: readSwitch(env, sanitizeVariable),
    log: (line) => process.stderr.write(`open-infra jit: ${line}\n`),
  };
}

/** The directory of compiled kernels that the environment asks for; it need not exist yet. */
export function jitCacheDir(): string {
  return cacheDirFrom(process.env);
}

function cacheDirFrom(env: Environment): string {
  if (env.OPEN_INFRA_JIT_CACHE_DIR) return resolve(env.OPEN_INFRA_JIT_CACHE_DIR);
  const xdg = env.XDG_CACHE_HOME;
  if (xdg && isAbsolute(xdg)) return join(xdg, "open-infra", "jit");
  try {
    return join(env.HOME || homedir(), ".cache", "open-infra", "jit");
  } catch (cause) {
    throw new CacheError("~/.cache/open-infra/jit", "has no home directory to be in", { cause });
  }
}

function readSwitch(env: Environment, name: string): boolean {
  const value = env[name];
  if (value === undefined || value === "" || value === "0" || value === "false") return false;
  if (value === "1" || value === "true") return true;
  throw new JitOptionError(name, `'${value}'`, "0 or 1");
}
