// Reads a JSON document that a user names or pipes in. What is wrong with it is said with its
// place: which file, which line and column, what stands there.

import { createReadStream, type Stats, statSync } from "node:fs";
import type { CliContext } from "./context.ts";
import { UsageError } from "./parse.ts";
import { formatBytes } from "./progress.ts";

/** A text beyond this would not fit a JavaScript string once decoded and parsed. */
const BYTES_MAX = 256 * 2 ** 20;

/** A document and what to call it in messages. */
export interface InputText {
  readonly name: string;
  readonly text: string;
}

interface Stdin extends AsyncIterable<Uint8Array> {
  readonly isTTY?: boolean;
}

function openFile(file: string): AsyncIterable<Uint8Array> {
  let stats: Stats;
  try {
    stats = statSync(file);
  } catch (error) {
    throw new UsageError(`cannot read ${file}: ${(error as NodeJS.ErrnoException).code}`);
  }
  if (stats.isDirectory()) throw new UsageError(`${file} is a folder; name a JSON file`);
  if (stats.size > BYTES_MAX) {
    const most = formatBytes(BYTES_MAX);
    throw new UsageError(`${file} has ${formatBytes(stats.size)}; at most ${most} can be read`);
  }
  return createReadStream(file);
}

function openStdin(context: CliContext, usage: string): AsyncIterable<Uint8Array> {
  const { stdin } = context.process as { readonly stdin?: Stdin };
  if (stdin === undefined || stdin.isTTY === true) {
    throw new UsageError(`nothing is piped into standard input: ${usage}`);
  }
  return stdin;
}

/**
 * Reads a file, or standard input if `file` is `-` or not given.
 *
 * @throws UsageError if it cannot be read, is empty or too large; at a terminal it says `usage`.
 */
export async function readText(
  context: CliContext,
  file: string | undefined,
  usage: string,
): Promise<InputText> {
  const fromStdin = file === undefined || file === "-";
  const name = fromStdin ? "standard input" : file;
  const pieces: Uint8Array[] = [];
  let bytes = 0;
  try {
    for await (const piece of fromStdin ? openStdin(context, usage) : openFile(file)) {
      pieces.push(piece);
      bytes += piece.length;
      if (bytes <= BYTES_MAX) continue;
      throw new UsageError(`${name} has more than ${formatBytes(BYTES_MAX)}, the most it may have`);
    }
  } catch (error) {
    if (error instanceof UsageError) throw error;
    throw new UsageError(`cannot read ${name}: ${(error as Error).message}`);
  }
  const text = Buffer.concat(pieces)
    .toString("utf8")
    .replace(/^\uFEFF/, "");
  if (text.trim() === "") throw new UsageError(`${name} is empty: ${usage}`);
  return { name, text };
}

/** @throws UsageError naming the line and column where `text` stops being JSON. */
export function parseJson({ name, text }: InputText): unknown {
  try {
    return JSON.parse(text);
  } catch (error) {
    const offset = jsonErrorOffset(text);
    if (offset === undefined) {
      throw new UsageError(`${name} is not JSON: ${(error as Error).message}`);
    }
    throw new UsageError(`${name} is not JSON: ${describeOffset(text, offset)}`);
  }
}

const markPattern = String.raw`[[\]{},:]`;
const stringPattern = String.raw`"(?:[^"\\]|\\(?:["\\/bfnrt]|u[\da-fA-F]{4}))*"`;
const numberPattern = String.raw`-?(?:0|[1-9]\d*)(?:\.\d+)?(?:[eE][+-]?\d+)?`;
/** The next token: a mark, a string, another scalar, or the end. */
const tokens = new RegExp(
  `[ \\t\\r\\n]*(?:(${markPattern})|(${stringPattern})|(${numberPattern}|true|false|null)|$)`,
  "y",
);

/** What may come next: a value, a key, or what follows either. */
type Expected = "value" | "value-or-]" | "key" | "key-or-}" | "colon" | "comma-or-end" | "nothing";

function nextExpected(stack: string[]): Expected {
  return stack.length === 0 ? "nothing" : "comma-or-end";
}

/** What is expected after `mark`, undefined if it may not stand here; keeps the open brackets. */
function afterMark(mark: string, expected: Expected, stack: string[]): Expected | undefined {
  if (mark === "[" || mark === "{") {
    if (!expected.startsWith("value")) return undefined;
    stack.push(mark);
    return mark === "[" ? "value-or-]" : "key-or-}";
  }
  const open = stack.at(-1);
  if (mark === "]" || mark === "}") {
    const fits = open === (mark === "]" ? "[" : "{");
    if (!fits || !(expected === "comma-or-end" || expected.endsWith(mark))) return undefined;
    stack.pop();
    return nextExpected(stack);
  }
  if (mark === ":") return expected === "colon" ? "value" : undefined;
  if (expected !== "comma-or-end") return undefined;
  return open === "[" ? "value" : "key";
}

function hasControl(string: string): boolean {
  for (let i = 0; i < string.length; i++) if (string.charCodeAt(i) < 0x20) return true;
  return false;
}

/**
 * Where a text stops being JSON: the parser of the language does not say for every mistake.
 * Undefined if it is JSON after all.
 */
export function jsonErrorOffset(text: string): number | undefined {
  const stack: string[] = [];
  let expected: Expected = "value";
  let at = 0;
  for (;;) {
    tokens.lastIndex = at;
    const found = tokens.exec(text);
    const start = at + (/^[ \t\r\n]*/.exec(text.slice(at, at + 65_536))?.[0].length ?? 0);
    if (found === null) return start;
    const [, mark, string, scalar] = found;
    let next: Expected | undefined;
    if (mark !== undefined) next = afterMark(mark, expected, stack);
    else if (string !== undefined && hasControl(string)) return start;
    else if (string !== undefined && expected.startsWith("key")) next = "colon";
    else if (string !== undefined || scalar !== undefined) {
      next = expected.startsWith("value") ? nextExpected(stack) : undefined;
    } else return expected === "nothing" ? undefined : text.length;
    if (next === undefined) return start;
    expected = next;
    at = tokens.lastIndex;
  }
}

function describeOffset(text: string, offset: number): string {
  const before = text.slice(0, offset);
  const line = before.split("\n").length;
  const column = offset - (before.lastIndexOf("\n") + 1) + 1;
  const place = `line ${line}, column ${column}`;
  const rest = text.slice(offset, offset + 24).split("\n")[0] as string;
  if (rest === "") return `it ends too early, at ${place}`;
  const word = /^[+-]?(?:NaN|Infinity|undefined|None|nan|inf)/.exec(rest)?.[0];
  if (word !== undefined) return `${word} at ${place}; JSON has no such value`;
  return `unexpected ${JSON.stringify(rest)} at ${place}`;
}
