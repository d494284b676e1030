// Opens what `open-infra trace` works on: a trace, plain or gzip, from a file or standard input, or
// an analysis that `trace analyze --json` saved.

import { createReadStream, type Stats, statSync } from "node:fs";
import type { InfraError } from "@open-infra/errors";
import {
  builtinRules,
  type Classifier,
  createClassifier,
  type EventTable,
  parseRules,
  type ReadTraceOptions,
  readTrace,
  type TraceAnalysis,
} from "@open-infra/profile/analyze";
import type { CliContext } from "./context.ts";
import { parseJson, readText } from "./json-input.ts";
import { UsageError } from "./parse.ts";
import { createProgress, formatBytes, type Progress } from "./progress.ts";

/** Below this a bar would only flicker. */
const PROGRESS_FROM_BYTES = 16 * 2 ** 20;
/** Larger files are no saved analyses. */
const ANALYSIS_BYTES_MAX = 256 * 2 ** 20;

interface Source {
  /** For messages. */
  readonly name: string;
  readonly bytes: AsyncIterable<Uint8Array>;
  /** Undefined where it is not known. */
  readonly size: number | undefined;
}

/** What a file is called in messages. */
export function nameOf(path: string): string {
  return path === "-" ? "standard input" : path;
}

function open(path: string): Source {
  if (path === "-") return { name: nameOf(path), bytes: process.stdin, size: undefined };
  let stats: Stats;
  try {
    stats = statSync(path);
  } catch (error) {
    throw new UsageError(`cannot read ${path}: ${(error as NodeJS.ErrnoException).code}`);
  }
  if (stats.isDirectory()) throw new UsageError(`${path} is a folder; name a trace file`);
  const bytes = createReadStream(path, { highWaterMark: 1 << 20 });
  return { name: path, bytes, size: stats.isFile() ? stats.size : undefined };
}

/** An error about the content also says which file it is. */
function named(name: string, error: unknown): unknown {
  const { code, message } = error as InfraError;
  if (code === "input") {
    return new UsageError(`${name}: ${message.replace("tolerant reading", "--tolerant")}`);
  }
  const system = (error as NodeJS.ErrnoException).syscall !== undefined;
  return system ? new UsageError(`cannot read ${name}: ${message}`) : error;
}

async function read(
  context: CliContext,
  { name, size }: Source,
  bytes: AsyncIterable<Uint8Array>,
  options: ReadTraceOptions,
): Promise<EventTable> {
  using progress = size !== undefined && size >= PROGRESS_FROM_BYTES ? bar(context) : undefined;
  try {
    return await readTrace(bytes, {
      ...options,
      onProgress: (done) => progress?.update("reading", done, size ?? done),
    });
  } catch (error) {
    throw named(name, error);
  }
}

function bar(context: CliContext): Progress {
  return createProgress(context, {
    format: (_phase, done, total) => `${formatBytes(done)} of ${formatBytes(total)}`,
  });
}

/**
 * Reads a trace; `-` is standard input.
 *
 * @throws UsageError if it cannot be read, with what is wrong and where.
 */
export async function openTrace(
  context: CliContext,
  path: string,
  options: ReadTraceOptions = {},
): Promise<EventTable> {
  const source = open(path);
  return read(context, source, source.bytes, options);
}

/**
 * Reads a trace, or an analysis that was saved: a JSON object that begins with `"schema"`.
 *
 * @throws UsageError if it cannot be read, with what is wrong and where.
 */
export async function openTraceOrAnalysis(
  context: CliContext,
  path: string,
  options: ReadTraceOptions = {},
): Promise<{ readonly table: EventTable } | { readonly analysis: TraceAnalysis }> {
  const source = open(path);
  const pieces = source.bytes[Symbol.asyncIterator]();
  let first: IteratorResult<Uint8Array>;
  try {
    first = await pieces.next();
  } catch (error) {
    throw named(source.name, error);
  }
  const head = first.done ? "" : Buffer.from(first.value.subarray(0, 256)).toString("latin1");
  const all = withFirst(first, pieces);
  if (!/^\s*\{\s*"schema"\s*:/.test(head)) {
    return { table: await read(context, source, all, options) };
  }
  return { analysis: await readAnalysis(source.name, all) };
}

async function* withFirst(
  first: IteratorResult<Uint8Array>,
  rest: AsyncIterator<Uint8Array>,
): AsyncGenerator<Uint8Array> {
  for (let piece = first; !piece.done; piece = await rest.next()) yield piece.value;
}

async function readAnalysis(
  name: string,
  pieces: AsyncIterable<Uint8Array>,
): Promise<TraceAnalysis> {
  const parts: Uint8Array[] = [];
  let size = 0;
  for await (const piece of pieces) {
    parts.push(piece);
    size += piece.length;
    if (size > ANALYSIS_BYTES_MAX) throw new UsageError(`${name} is too large for an analysis`);
  }
  let parsed: Partial<TraceAnalysis>;
  try {
    parsed = JSON.parse(Buffer.concat(parts).toString("utf8")) as Partial<TraceAnalysis>;
  } catch (error) {
    throw new UsageError(`${name}: not JSON: ${(error as Error).message}`);
  }
  if (parsed.schema !== 1) {
    throw new UsageError(`${name}: schema is ${JSON.stringify(parsed.schema)}; expected 1`);
  }
  const complete =
    typeof parsed.summary?.spanUs === "number" &&
    Array.isArray(parsed.kernels?.kernels) &&
    Array.isArray(parsed.kernels.classes) &&
    Array.isArray(parsed.devices) &&
    Array.isArray(parsed.phases?.phases);
  if (!complete) throw new UsageError(`${name}: not an analysis of \`open-infra trace analyze\``);
  return parsed as TraceAnalysis;
}

/**
 * The built-in rules, after those of a JSON file if one is named.
 *
 * @throws UsageError if the file cannot be read or a rule cannot be used.
 */
export async function classifierOf(
  context: CliContext,
  rulesFile: string | undefined,
): Promise<Classifier> {
  if (rulesFile === undefined) return createClassifier(builtinRules);
  const input = await readText(context, rulesFile, 'expected [{"match": …, "class": …}]');
  const parsed = parseJson(input);
  try {
    return createClassifier([...parseRules(parsed), ...builtinRules]);
  } catch (error) {
    throw named(input.name, error);
  }
}
