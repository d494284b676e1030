// From the paths a user gives to files: globs, folders, order. Each file carries its size and time,
// so that a changed file changes the keys of what was made of it.

import { glob, stat } from "node:fs/promises";
import { join, resolve } from "node:path";
import { InputError } from "@open-infra/errors";
import type { FilePart } from "./dataset.ts";

/** A source file with what tells it from an earlier version of itself. */
export interface SourcePart extends FilePart {
  readonly modifiedMs: number;
}

/**
 * The files of paths, folders and globs, each pattern's in order of name.
 *
 * @throws InputError if a path matches nothing
 */
export async function resolveFiles(
  paths: string | readonly string[],
  caller: string,
  recursive = false,
  extension = "",
): Promise<SourcePart[]> {
  const list = typeof paths === "string" ? [paths] : paths;
  const parts: SourcePart[] = [];
  for (const path of list) {
    const found = await expand(path, recursive, extension);
    if (found.length === 0) throw new InputError(`${caller}: paths`, path, "an existing file");
    for (const part of found) parts.push(part);
  }
  return parts;
}

async function expand(path: string, recursive: boolean, extension: string): Promise<SourcePart[]> {
  const info = await stat(path).catch(() => undefined);
  if (info?.isFile()) return [partOf(resolve(path), info)];
  const pattern = info?.isDirectory() ? join(path, `${recursive ? "**/" : ""}*${extension}`) : path;
  const names: string[] = [];
  for await (const name of glob(pattern)) names.push(resolve(name));
  const parts: SourcePart[] = [];
  for (const name of names.sort()) {
    const file = await stat(name);
    if (file.isFile()) parts.push(partOf(name, file));
  }
  return parts;
}

function partOf(
  path: string,
  info: { readonly size: number; readonly mtimeMs: number },
): SourcePart {
  return { path, bytes: info.size, modifiedMs: info.mtimeMs };
}
