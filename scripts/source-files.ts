// The files of this repository as the house rules see them: written by people, not generated, not
// fixtures. Walks the folder itself, so that it works on an unpacked archive without git too.

import { readdirSync, readFileSync } from "node:fs";
import { join, relative, sep } from "node:path";
import { fileURLToPath } from "node:url";

/** A text file: its path from the root with forward slashes, and its lines. */
export interface SourceFile {
  readonly path: string;
  readonly lines: readonly string[];
}

/** What a rule has to say about one line; `line` counts from 1. */
export interface Violation {
  readonly path: string;
  readonly line: number;
  readonly message: string;
}

/** The root of the repository. */
export const root: string = fileURLToPath(new URL("..", import.meta.url));

const skippedFolders = new Set(["node_modules", "dist", "web-dist", "fixtures", "results", "tmp"]);
const textFiles = /\.(ts|tsx|mjs|js|c|h|cu|wgsl|css|html|md|sh|py|json)$/;
const notWritten = /(^|\/)(package-lock\.json|tokenizer[^/]*\.json|golden[^/]*\.json)$/;

function walk(dir: string, found: string[]): void {
  for (const entry of readdirSync(dir, { withFileTypes: true })) {
    const path = join(dir, entry.name);
    if (entry.name.startsWith(".") && entry.name !== ".ci") continue;
    if (entry.isDirectory()) {
      if (!skippedFolders.has(entry.name)) walk(path, found);
    } else if (entry.isFile() && (textFiles.test(entry.name) || path.includes(`${sep}.ci${sep}`))) {
      found.push(path);
    }
  }
}

/** Every text file of the repository that somebody wrote. */
export function readSourceFiles(): SourceFile[] {
  const found: string[] = [];
  walk(root, found);
  return found
    .map((path) => ({ absolute: path, path: relative(root, path).split(sep).join("/") }))
    .filter(({ path }) => !notWritten.test(path))
    .map(({ absolute, path }) => ({ path, lines: readFileSync(absolute, "utf8").split("\n") }))
    .toSorted((a, b) => (a.path < b.path ? -1 : 1));
}

/** The package that a path belongs to, without the scope; undefined outside `packages/`. */
export function packageOf(path: string): string | undefined {
  return /^packages\/([^/]+)\//.exec(path)?.[1];
}

/** Whether a file is shipped code of a package: its `src/` or its kernels. */
export function isShipped(path: string): boolean {
  return /^packages\/[^/]+\/(src|kernels)\/.*\.(ts|tsx|c|h)$/.test(path);
}
