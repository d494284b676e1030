// Puts finished files into a user's folder so that nobody ever sees a part of them that looks like
// the whole. New folders and overwritten ones appear by one rename. Files beside others are linked
// aside first; then a list of what goes where is renamed into place, which is the moment of
// commitment; whoever writes there next carries out a list that a crash left, and removes what
// never got a list. Replacing a folder takes two renames, as POSIX has no exchange that Node
// offers; between them the folder is absent, and a crash there is undone by the next write.

import { randomUUID } from "node:crypto";
import {
  copyFile,
  link,
  mkdir,
  readdir,
  readFile,
  rename,
  rm,
  stat,
  writeFile,
} from "node:fs/promises";
import { basename, dirname, extname, join, resolve } from "node:path";
import { InputError } from "@open-infra/errors";
import { isAlive } from "../process-alive.ts";
import type { ParquetWriteOptions, WriteMode } from "./frame-options.ts";

/** A file of the job and its name, with `/` for folders, where the user looks. */
export interface WrittenFile {
  readonly from: string;
  readonly name: string;
}

/** How files get into the folder. */
export interface FolderWriteOptions {
  readonly mode: WriteMode;
  readonly kind: NonNullable<ParquetWriteOptions["kind"]>;
}

const stagingPrefix = ".staging-";
const listName = "commit.json";
const manifest = ".MANIFEST.txt";

/** Names in a folder that are a user's; none if it is not there. */
async function namesIn(folder: string): Promise<string[]> {
  try {
    return (await readdir(folder)).filter((name) => !name.startsWith(stagingPrefix));
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code === "ENOENT") return [];
    throw error;
  }
}

/**
 * Looks at a folder before anything is computed for it, and carries on what a crash left there.
 *
 * @returns whether there is anything to do
 * @throws InputError for a folder with files, if the mode is `error`; for a path that is a file
 */
export async function openFolder(path: string, mode: WriteMode): Promise<boolean> {
  const folder = resolve(path);
  const info = await stat(folder).catch(() => undefined);
  if (info !== undefined && !info.isDirectory()) {
    throw new InputError("path to write", path, "a folder, not a file");
  }
  await recoverFolder(folder);
  const names = await namesIn(folder);
  if (names.length === 0) return true;
  if (mode === "error") {
    const count = `${path} with ${names.length} files`;
    throw new InputError("path to write", count, "an empty folder, or mode append or overwrite");
  }
  return mode !== "ignore";
}

/** Puts files into a folder, all or none. */
export async function writeFolder(
  path: string,
  files: readonly WrittenFile[],
  options: FolderWriteOptions,
): Promise<void> {
  const folder = resolve(path);
  const empty = (await namesIn(folder)).length === 0;
  if (options.mode === "overwrite" || empty) await replaceFolder(folder, files, options);
  else await addToFolder(folder, files, options);
}

async function replaceFolder(
  folder: string,
  files: readonly WrittenFile[],
  options: FolderWriteOptions,
): Promise<void> {
  const id = randomUUID().slice(0, 8);
  const aside = join(dirname(folder), `.${basename(folder)}${stagingPrefix}${id}`);
  const old = join(dirname(folder), `.${basename(folder)}.replaced-${id}`);
  try {
    await mkdir(aside, { recursive: true });
    await place(aside, files, options);
    const there = await stat(folder).catch(() => undefined);
    if (there !== undefined) await rename(folder, old);
    try {
      await rename(aside, folder);
    } catch (error) {
      if (there !== undefined) await rename(old, folder);
      throw error;
    }
  } finally {
    await rm(aside, { recursive: true, force: true });
  }
  await rm(old, { recursive: true, force: true });
}

async function addToFolder(
  folder: string,
  files: readonly WrittenFile[],
  options: FolderWriteOptions,
): Promise<void> {
  const staging = join(folder, `${stagingPrefix}${process.pid}-${randomUUID().slice(0, 8)}`);
  try {
    await mkdir(staging);
    const named: WrittenFile[] = [];
    const taken = new Set<string>();
    for (const file of files) {
      const name = await freeName(folder, file.name, taken);
      taken.add(name);
      named.push({ from: file.from, name });
    }
    await place(staging, named, options);
    const names = options.kind === "manifest" ? [manifest] : named.map(({ name }) => name);
    await writeFile(join(staging, `${listName}.new`), JSON.stringify(names));
    await rename(join(staging, `${listName}.new`), join(staging, listName));
  } catch (error) {
    await rm(staging, { recursive: true, force: true });
    throw error;
  }
  await carryOut(folder, staging);
}

/** A name that is not taken: `part-0.parquet`, `part-0-1.parquet`, … */
async function freeName(folder: string, name: string, taken: Set<string>): Promise<string> {
  const end = extname(name);
  const head = name.slice(0, name.length - end.length);
  for (let n = 0; ; n++) {
    const tried = n === 0 ? name : `${head}-${n}${end}`;
    if (taken.has(tried)) continue;
    if ((await stat(join(folder, tried)).catch(() => undefined)) === undefined) return tried;
  }
}

/** Links or copies files into a folder that nobody looks at. */
async function place(
  folder: string,
  files: readonly WrittenFile[],
  { kind }: FolderWriteOptions,
): Promise<void> {
  if (kind === "manifest") {
    await writeFile(join(folder, manifest), files.map(({ from }) => `${from}\n`).join(""));
    return;
  }
  const folders = new Set(files.map(({ name }) => dirname(name)).filter((name) => name !== "."));
  for (const name of folders) await mkdir(join(folder, name), { recursive: true });
  for (const { from, name } of files) {
    const to = join(folder, name);
    if (kind === "copy") await copyFile(from, to);
    else if (kind === "link") await link(from, to);
    else await link(from, to).catch(() => copyFile(from, to));
  }
}

/** Moves what a committed list names; can be done again after a crash in the middle. */
async function carryOut(folder: string, staging: string): Promise<void> {
  const names = JSON.parse(await readFile(join(staging, listName), "utf8")) as string[];
  for (const name of names) {
    await mkdir(dirname(join(folder, name)), { recursive: true });
    await rename(join(staging, name), join(folder, name)).catch((error) => {
      if ((error as NodeJS.ErrnoException).code !== "ENOENT") throw error;
    });
  }
  await rm(staging, { recursive: true, force: true });
}

/** Finishes or undoes what a write that crashed left in and beside a folder. */
async function recoverFolder(folder: string): Promise<void> {
  const parent = dirname(folder);
  const beside = await readdir(parent).catch(() => [] as string[]);
  const replaced = beside.filter((name) => name.startsWith(`.${basename(folder)}.replaced-`));
  for (const name of replaced) {
    const gone = (await stat(folder).catch(() => undefined)) === undefined;
    if (gone) await rename(join(parent, name), folder);
    else await rm(join(parent, name), { recursive: true, force: true });
  }
  const inside = await readdir(folder).catch(() => [] as string[]);
  for (const name of inside.filter((entry) => entry.startsWith(stagingPrefix))) {
    const staging = join(folder, name);
    const committed = await stat(join(staging, listName)).catch(() => undefined);
    if (committed !== undefined) await carryOut(folder, staging);
    else if (!isAlive(Number(name.slice(stagingPrefix.length).split("-")[0]))) {
      await rm(staging, { recursive: true, force: true });
    }
  }
}
