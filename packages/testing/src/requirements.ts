// What a test needs of the machine. A test whose requirement is missing prints one SKIP line that
// says what is missing and how to get it; with REQUIRE_ALL=1 it fails instead of skipping.

import { spawnSync } from "node:child_process";
import { existsSync } from "node:fs";
import { fileURLToPath } from "node:url";

/** Either met, or the reason why not, ending in how to get it. */
export type Requirement = true | string;

/**
 * For `it.skipIf` / `describe.skipIf`: false when the requirement is met. When it is not, prints
 * `SKIP <test>: <reason>` and returns true, or throws under REQUIRE_ALL=1.
 *
 * `optional` requirements (the shared reference folder) skip quietly even then.
 */
export function requirement(
  test: string,
  met: Requirement,
  kind: "required" | "optional" = "required",
): boolean {
  if (met === true) return false;
  const line = `SKIP ${test}: ${met}`;
  if (kind === "required" && process.env.REQUIRE_ALL === "1")
    throw new Error(`REQUIRE_ALL=1, but ${line}`);
  console.log(line);
  return true;
}

/** True if `program --version` runs. */
export function hasProgram(program: string): boolean {
  return spawnSync(program, ["--version"], { stdio: "ignore" }).status === 0;
}

/** A path in the reference folder beside the checkout, or undefined where it is absent. */
export function sharedDir(path: string): string | undefined {
  const dir = fileURLToPath(new URL(`../../../../shared/${path}`, import.meta.url));
  return existsSync(dir) ? dir : undefined;
}
