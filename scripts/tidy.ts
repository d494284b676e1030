// The house rules that a machine can check, as one function a rule over all files. Run as a program
// it prints what breaks them; scripts/test/tidy.unit.test.ts runs them in `npm test`. Imports have
// their own rules in tidy-imports.ts; formatting is Biome's business.

import {
  isShipped,
  packageOf,
  readSourceFiles,
  type SourceFile,
  type Violation,
} from "./source-files.ts";
import { importViolations } from "./tidy-imports.ts";

/** A rule: what it asks for, and where the files break it. */
export interface Rule {
  readonly name: string;
  check(files: readonly SourceFile[]): readonly Violation[];
}

const columnsMax = 100;
const fileLinesMax = 600;
const functionLinesMax = 70;

/**
 * Functions that were longer when the rule came, and how long they may be; entries only shrink and
 * go. Keyed by path and the function's first line.
 */
const longFunctions: ReadonlyMap<string, number> = new Map([]);

/**
 * Lines wider than the limit that were there when the rule came, by package; numbers only shrink
 * and go. `node scripts/tidy.ts --all` lists them.
 */
const wideLines: ReadonlyMap<string, number> = new Map([["deep-gemm", 20]]);

/** Library files that may print, because that is what they are for. */
const printers: ReadonlySet<string> = new Set(["packages/testing/src/requirements.ts"]);

const code = /\.(ts|tsx|c|h)$/;

/** Calls `visit` for each line of the files that `select` takes; a string becomes a violation. */
function eachLine(
  files: readonly SourceFile[],
  select: (path: string) => boolean,
  visit: (line: string, path: string) => string | undefined,
): Violation[] {
  const found: Violation[] = [];
  for (const { path, lines } of files) {
    if (!select(path)) continue;
    lines.forEach((line, i) => {
      const message = visit(line, path);
      if (message !== undefined) found.push({ path, line: i + 1, message });
    });
  }
  return found;
}

function allTooWide(files: readonly SourceFile[]): Violation[] {
  return eachLine(
    files,
    (path) => code.test(path),
    (line) => {
      // An address or a row of a table cannot be broken; nor can Biome break a test's title.
      if (/https?:\/\/|^\s*(\/\/|\*)?\s*\|.*\|\s*$/.test(line)) return undefined;
      const columns = [...line].length;
      return columns > columnsMax ? `${columns} columns; at most ${columnsMax}` : undefined;
    },
  );
}

function tooWide(files: readonly SourceFile[]): Violation[] {
  const byPackage = Map.groupBy(allTooWide(files), ({ path }) => packageOf(path) ?? "");
  return [...byPackage].flatMap(([name, lines]) =>
    lines.length > (wideLines.get(name) ?? 0) ? lines : [],
  );
}

function tooLong(files: readonly SourceFile[]): Violation[] {
  return files
    .filter(({ path, lines }) => code.test(path) && lines.length - 1 > fileLinesMax)
    .map(({ path, lines }) => ({
      path,
      line: 1,
      message: `${lines.length - 1} lines; at most ${fileLinesMax}`,
    }));
}

const indentOf = (line: string): number => line.length - line.trimStart().length;

/** Whether a line that ends in `{` opens the body of a TypeScript function. */
function opensTsFunction(line: string): boolean {
  const text = line.trim();
  if (/^(\} )?(if|for|while|switch|catch|else|do|try|class|interface|type|return)\b/.test(text)) {
    return /=> \{$/.test(text);
  }
  // A group of tests is a list, not a function.
  if (/\b(describe|suite)\b/.test(text)) return false;
  return /=> \{$|\)(: [^=]+)? \{$/.test(text);
}

/** Whether a line opens the body of a C function: at the margin, after a parameter list. */
function opensCFunction(line: string): boolean {
  return /^\S.*\) \{$/.test(line) && !/^[#}]/.test(line);
}

/**
 * Index of the line on which the function opening at `opens` begins, above a list of parameters.
 */
function headOf(lines: readonly string[], opens: number): number {
  const line = lines[opens] as string;
  if (!/^\s*[)}]/.test(line)) return opens;
  for (let i = opens - 1; i >= 0; i--) {
    const above = lines[i] as string;
    if (above.trim() !== "" && indentOf(above) <= indentOf(line)) return i;
  }
  return opens;
}

/** Formatted code closes a body at the indent of the line that began it. */
function tooLongFunctions(files: readonly SourceFile[]): Violation[] {
  const found: Violation[] = [];
  for (const { path, lines } of files) {
    if (!code.test(path)) continue;
    const opens = /\.[ch]$/.test(path) ? opensCFunction : opensTsFunction;
    lines.forEach((line, i) => {
      if (!opens(line)) return;
      const head = headOf(lines, i);
      const close = lines.findIndex(
        (l, j) => j > i && l.trimStart().startsWith("}") && indentOf(l) === indentOf(line),
      );
      const length = (close < 0 ? lines.length : close) - head + 1;
      const first = (lines[head] as string).trim();
      const allowed = longFunctions.get(`${path}: ${first}`) ?? functionLinesMax;
      if (length <= allowed) return;
      const message = `a function of ${length} lines; at most ${allowed}: ${first}`;
      found.push({ path, line: head + 1, message });
    });
  }
  return found;
}

function withoutHeader(files: readonly SourceFile[]): Violation[] {
  return files
    .filter(({ path, lines }) => {
      if (!isShipped(path) && !/^scripts\/.*\.ts$/.test(path)) return false;
      const first = lines.find((line) => line !== "" && !line.startsWith("#!"));
      return first === undefined || !/^\/[/*]/.test(first);
    })
    .map(({ path }) => ({ path, line: 1, message: "no comment that says what the file is for" }));
}

function leftovers(files: readonly SourceFile[]): Violation[] {
  const marker = new RegExp(`\\b(TO${"DO"}|FIX${"ME"}|HA${"CK"}|X${"XX"})\\b|^\\s*debugger;`);
  const marked = eachLine(
    files,
    (path) => code.test(path),
    (line) => (marker.test(line) ? `left over: ${line.trim().slice(0, 60)}` : undefined),
  );
  const focused = eachLine(
    files,
    (path) => /\.test\.tsx?$/.test(path),
    (line) =>
      /\b(it|test|describe)\.only\b/.test(line)
        ? "runs alone, and hides the other tests"
        : undefined,
  );
  const printed = eachLine(
    files,
    (path) => isShipped(path) && packageOf(path) !== "cli" && !printers.has(path),
    (line) =>
      /^\s*console\.(log|debug|info)\(/.test(line)
        ? "a library prints; return or log it"
        : undefined,
  );
  return [...marked, ...focused, ...printed];
}

function machinePaths(files: readonly SourceFile[]): Violation[] {
  const personal = new RegExp(`(?<![\\w./-])/(wo${"rk"}|ho${"me"}|ro${"ot"}|Us${"ers"})/[\\w.]`);
  return eachLine(
    files,
    () => true,
    (line) =>
      personal.test(line) ? `a path of one machine: ${personal.exec(line)?.[0]}` : undefined,
  );
}

/** Names of others that our code may read, because their owners defined what they mean. */
const foreignVariables =
  /^(CC|PATH|HOME|XDG_[A-Z_]+|CI|NO_COLOR|FORCE_COLOR|REQUIRE_ALL|TMPDIR|LD_PRELOAD)$/;

/** Those by which launchers say which rank a process is, and UCX's choice of transports. */
const launcherVariables =
  /^(MASTER_(ADDR|PORT)|SLURM_[A-Z_]+|OMPI_[A-Z_]+|PMIX_\w+|TORCHELASTIC_\w+|UCX_TLS)$/;

/** Those of the original smallpond, which its scripts have; a README's lines say them. */
const smallpondVariables = /^SP_[A-Z0-9_]+$/;

function undocumentedVariables(files: readonly SourceFile[]): Violation[] {
  const documented = new Set<string>();
  for (const { path, lines } of files) {
    if (!path.endsWith("README.md")) continue;
    for (const line of lines) {
      for (const [name] of line.matchAll(/\bSP_[A-Z0-9_]+/g)) documented.add(name);
      if (!line.startsWith("|")) continue;
      for (const [name] of line.matchAll(/OPEN_INFRA_[A-Z0-9_]+/g)) documented.add(name);
    }
  }
  return eachLine(
    files,
    (path) => isShipped(path) && path.endsWith(".ts"),
    (line) => {
      for (const [, name] of line.matchAll(/\benv(?:\.|\[")([A-Z][A-Z0-9_]*)/g)) {
        const ours = name?.startsWith("OPEN_INFRA_") || smallpondVariables.test(`${name}`);
        const foreign = foreignVariables.test(`${name}`) || launcherVariables.test(`${name}`);
        if (ours ? documented.has(`${name}`) : foreign) continue;
        return ours ? `${name} is in no README's table` : `${name} lacks the prefix OPEN_INFRA_`;
      }
      return undefined;
    },
  );
}

function withoutReadme(files: readonly SourceFile[]): Violation[] {
  const paths = new Set(files.map(({ path }) => path));
  return [...paths]
    .filter((path) => /^packages\/[^/]+\/package\.json$/.test(path))
    .filter((path) => !paths.has(path.replace("package.json", "README.md")))
    .map((path) => ({ path, line: 1, message: "a package without README.md" }));
}

/** All rules, in the order they are reported. */
export const rules: readonly Rule[] = [
  { name: `lines of at most ${columnsMax} columns`, check: tooWide },
  { name: `files of at most ${fileLinesMax} lines`, check: tooLong },
  { name: `functions of at most ${functionLinesMax} lines`, check: tooLongFunctions },
  { name: "a header comment in every source file", check: withoutHeader },
  { name: "nothing left over from debugging", check: leftovers },
  { name: "no paths of one machine", check: machinePaths },
  { name: "environment variables with our prefix, in a table", check: undocumentedVariables },
  { name: "a README in every package", check: withoutReadme },
  { name: "imports that run downward, as declared", check: importViolations },
];

/** A violation as an editor can follow it. */
export function formatViolation({ path, line, message }: Violation): string {
  return `${path}:${line} ${message}`;
}

if (import.meta.main) {
  const files = readSourceFiles();
  const shown = process.argv.includes("--all")
    ? [...rules, { name: "wide lines still allowed", check: allTooWide }]
    : rules;
  for (const rule of shown) {
    const violations = rule.check(files);
    if (violations.length === 0) continue;
    process.exitCode = 1;
    console.log(`${rule.name}:\n${violations.map((v) => `  ${formatViolation(v)}`).join("\n")}`);
  }
}
