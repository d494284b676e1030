// Builds the web app into web-dist/. A plain script, run by the root's `prepare`, `prestart` and
// `build`; it serves nothing and watches nothing.
//
//   node --conditions=@open-infra/source packages/console/build.ts [--if-stale]
//
// With --if-stale it returns at once when web-dist was built from the same sources by the same
// tools, and a failure is one printed line and exit status 0: whoever only wants the API must not
// lose `npm ci` to the console.

import { createHash } from "node:crypto";
import { existsSync, readdirSync, readFileSync, statSync } from "node:fs";
import { mkdtemp, readdir, rename, rm, stat, writeFile } from "node:fs/promises";
import { createRequire } from "node:module";
import { dirname, join, relative, sep } from "node:path";
import process from "node:process";
import { fileURLToPath } from "node:url";

const packageDir = fileURLToPath(new URL(".", import.meta.url));
const webDir = join(packageDir, "web");
/** Everything whose version shows in the output. */
const TOOLS = ["vite", "preact", "@preact/signals", "uplot"] as const;
/** Packages whose sources are bundled: pages simulate, place and analyse in the browser. */
const BUNDLED = [
  "@open-infra/errors",
  "@open-infra/eplb",
  "@open-infra/dualpipe",
  "@open-infra/profile",
  "@open-infra/smallpond",
] as const;
const STAMP_FILE = ".build.json";
const WORK_PREFIX = ".build-";
/** A work folder older than this was left by a killed build. */
const ABANDONED_MS = 60 * 60 * 1000;

/** What a build did, for the one line that is printed. */
export interface BuildReport {
  readonly outcome: "built" | "fresh";
  readonly dir: string;
  readonly hash: string;
}

export interface BuildOptions {
  /** Do nothing when the output matches the sources. @default false */
  readonly ifStale?: boolean;
  /** Where the output goes; a test builds elsewhere. @default web-dist beside this file */
  readonly outDir?: string;
}

/**
 * Builds into a folder of its own and renames it into place, so that concurrent builds and a
 * running server never see half of one.
 *
 * @throws Error when a tool is missing or the sources do not build.
 */
export async function buildConsole(options: BuildOptions = {}): Promise<BuildReport> {
  const outDir = options.outDir ?? join(packageDir, "web-dist");
  const hash = sourceHash();
  if (options.ifStale === true && stampOf(outDir) === hash) {
    return { outcome: "fresh", dir: outDir, hash };
  }
  // Loaded only here: a fresh output must not need the tools.
  const { build } = await import("vite");
  // Beside the output, because a rename does not reach into another file system.
  const parent = dirname(outDir);
  await removeAbandoned(parent);
  const work = await mkdtemp(join(parent, WORK_PREFIX));
  try {
    // Named web-dist, because that is what .gitignore and the linter already leave alone.
    const built = join(work, "web-dist");
    await build({
      configFile: join(webDir, "vite.config.ts"),
      logLevel: "error",
      build: { outDir: built, emptyOutDir: true },
    });
    await writeFile(join(built, STAMP_FILE), `${JSON.stringify({ hash })}\n`);
    await publish({ built, outDir, aside: join(work, "previous"), hash });
  } finally {
    await rm(work, { recursive: true, force: true });
  }
  return { outcome: "built", dir: outDir, hash };
}

/**
 * Hash of every file that the app is made of, its own and those of the packages it computes with,
 * and of the versions of the tools, in a fixed order.
 */
function sourceHash(): string {
  const hash = createHash("sha256");
  const bundled = BUNDLED.map((name) => [name, folderOf(name)] as const);
  for (const [name, folder] of [["console/web", webDir], ...bundled] as const) {
    hash.update(`${name}\0`);
    if (folder === undefined) continue;
    const dir = name === "console/web" ? folder : join(folder, "src");
    const files = readdirSync(dir, { recursive: true, withFileTypes: true })
      .filter((entry) => entry.isFile())
      .map((entry) => join(entry.parentPath, entry.name))
      .sort();
    for (const file of files) {
      const content = readFileSync(file);
      hash.update(`${relative(dir, file).split(sep).join("/")}\0${content.length}\0`);
      hash.update(content);
    }
  }
  for (const tool of TOOLS) hash.update(`${tool}@${versionOf(tool)}\0`);
  return hash.digest("hex");
}

/** Looks at the disk, because not every package exports its package.json. */
function folderOf(name: string): string | undefined {
  const folders = createRequire(import.meta.url).resolve.paths(name) ?? [];
  return folders
    .map((folder) => join(folder, name))
    .find((path) => existsSync(join(path, "package.json")));
}

function versionOf(tool: string): string {
  const folder = folderOf(tool);
  if (folder === undefined) return "not installed";
  return String(JSON.parse(readFileSync(join(folder, "package.json"), "utf8")).version);
}

function stampOf(outDir: string): string | undefined {
  try {
    const stamp: unknown = JSON.parse(readFileSync(join(outDir, STAMP_FILE), "utf8"));
    if (!statSync(join(outDir, "index.html")).isFile()) return undefined;
    return typeof stamp === "object" && stamp !== null && "hash" in stamp
      ? String(stamp.hash)
      : undefined;
  } catch {
    return undefined;
  }
}

/**
 * A folder cannot be renamed over another: the old one steps aside first, and a race is retried.
 */
async function publish(move: {
  readonly built: string;
  readonly outDir: string;
  readonly aside: string;
  readonly hash: string;
}): Promise<void> {
  const attempts = 20;
  for (let attempt = 1; ; attempt++) {
    await rename(move.outDir, `${move.aside}-${attempt}`).catch(ignore("ENOENT"));
    try {
      await rename(move.built, move.outDir);
      return;
    } catch (error) {
      // Another build put its output there in between; the same sources are as good as ours.
      if (stampOf(move.outDir) === move.hash) return;
      if (attempt === attempts) throw error;
    }
  }
}

function ignore(code: string): (error: NodeJS.ErrnoException) => void {
  return (error) => {
    if (error.code !== code) throw error;
  };
}

async function removeAbandoned(parent: string): Promise<void> {
  for (const name of await readdir(parent)) {
    if (!name.startsWith(WORK_PREFIX)) continue;
    const path = join(parent, name);
    const age = await stat(path).then((entry) => Date.now() - entry.mtimeMs, ignore("ENOENT"));
    if (age !== undefined && age > ABANDONED_MS) await rm(path, { recursive: true, force: true });
  }
}

async function main(args: readonly string[]): Promise<void> {
  const unknown = args.find((arg) => arg !== "--if-stale");
  if (unknown !== undefined) {
    console.error(`console: unknown argument ${unknown}; the only one is --if-stale`);
    process.exitCode = 2;
    return;
  }
  const ifStale = args.includes("--if-stale");
  const startedAt = performance.now();
  try {
    const report = await buildConsole({ ifStale });
    const seconds = ((performance.now() - startedAt) / 1000).toFixed(1);
    const where = relative(process.cwd(), report.dir) || report.dir;
    console.log(
      report.outcome === "fresh"
        ? `console: ${where} is up to date`
        : `console: built ${where} in ${seconds} s`,
    );
  } catch (error) {
    const reason = (error instanceof Error ? error.message : String(error)).trim();
    const told = ifStale ? reason.split("\n", 1)[0] : reason;
    const advice = ifStale ? "" : "\nIf a tool is missing, run 'npm ci' without --omit=dev.";
    console.error(`console: not built, the API works without it: ${told}${advice}`);
    process.exitCode = ifStale ? 0 : 1;
  }
}

if (import.meta.main) await main(process.argv.slice(2));
