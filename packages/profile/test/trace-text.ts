// Random trace files for the reader's tests: JSON text in many spellings, and what a reader must
// make of it, found the slow way with JSON.parse and exact times.

import type { EventTable } from "@open-infra/profile/analyze";
import type { Random } from "@open-infra/testing";

/** One row as the tests compare it: no indices. */
export interface PlainRow {
  readonly phase: string;
  readonly pid: string | number;
  readonly tid: string | number;
  readonly name: string;
  readonly category: string;
  readonly startUs: number;
  readonly durationUs: number;
  readonly flowId: string | undefined;
  readonly correlation: number;
  readonly stream: number;
  readonly gridBlocks: number;
}

/** Row `i` of a table, spelled out. */
export function plainRow(table: EventTable, i: number): PlainRow {
  const lane = table.lanes[table.lane[i] as number];
  if (lane === undefined) throw new Error(`row ${i} is on no lane`);
  const flow = table.flowId[i] as number;
  return {
    phase: String.fromCharCode(table.phase[i] as number),
    pid: lane.pid,
    tid: lane.tid,
    name: table.strings[table.name[i] as number] as string,
    category: table.strings[table.category[i] as number] as string,
    startUs: table.startUs[i] as number,
    durationUs: table.durationUs[i] as number,
    flowId: flow === 0xffffffff ? undefined : table.strings[flow],
    correlation: table.correlation[i] as number,
    stream: table.stream[i] as number,
    gridBlocks: table.gridBlocks[i] as number,
  };
}

export const plainRows = (table: EventTable): PlainRow[] =>
  Array.from({ length: table.length }, (_, i) => plainRow(table, i));

const letters = ["a", "Z", "<", "::", " ", "é", "漢", "😀", '"', "\\", "\n", "\t", "/", "\u0001"];
const names = ["aten::mul", "", "ncclKernel", "void k<T, 1>(int const*)", "\ud800", "\u2028", "7"];

function randomName(random: Random): string {
  if (random.next() < 0.6) return random.pick(names);
  return Array.from({ length: random.int(0, 12) }, () => random.pick(letters)).join("");
}

/** A JSON string, with characters escaped that need not be. */
function spellString(text: string, random: Random): string {
  let out = "";
  for (let i = 0; i < text.length; i++) {
    const unit = text.charCodeAt(i);
    const lone = !text[i]?.isWellFormed() && !((text.codePointAt(i) as number) > 0xffff);
    const low = unit >= 0xdc00 && unit < 0xe000;
    if (low && i > 0 && out.endsWith(text[i - 1] as string)) out += text[i];
    else if (lone || low || random.next() < 0.1) {
      out += `\\u${unit.toString(16).padStart(4, "0")}`;
    } else out += JSON.stringify(text[i]).slice(1, -1);
  }
  return `"${out}"`;
}

const space = (random: Random): string =>
  random.next() < 0.5 ? "" : random.pick([" ", "\n  ", "\t", "\r\n", "    "]);

/** Any value, `depth` levels at most. */
function randomValue(random: Random, depth: number): unknown {
  const kind = random.int(0, depth > 0 ? 8 : 6);
  if (kind === 0) return random.int(-1e9, 1e9);
  if (kind === 1) return random.normal() * 10 ** random.int(-12, 12);
  if (kind === 2) return randomName(random);
  if (kind < 6) return random.pick([true, false, null]);
  if (kind === 6) {
    return Array.from({ length: random.int(0, 4) }, () => randomValue(random, depth - 1));
  }
  return Object.fromEntries(
    Array.from({ length: random.int(0, 4) }, () => [
      randomName(random),
      randomValue(random, depth - 1),
    ]),
  );
}

/** JSON text of `value` with random white space and escapes. */
function spell(value: unknown, random: Random): string {
  const s = (): string => space(random);
  if (typeof value === "string") return spellString(value, random);
  if (Array.isArray(value)) {
    if (value.length === 0) return `[${s()}]`;
    return `[${value.map((item) => `${s()}${spell(item, random)}${s()}`).join(",")}]`;
  }
  if (value !== null && typeof value === "object") {
    const entries = Object.entries(value);
    if (entries.length === 0) return `{${s()}}`;
    return `{${entries
      .map(([k, v]) => `${s()}${spellString(k, random)}${s()}:${s()}${spell(v, random)}${s()}`)
      .join(",")}}`;
  }
  return JSON.stringify(value);
}

function randomArgs(random: Random): Record<string, unknown> {
  const args: Record<string, unknown> = {};
  if (random.next() < 0.5) args["External id"] = random.int(0, 1e6);
  if (random.next() < 0.5) args.correlation = random.int(0, 4e9);
  if (random.next() < 0.5) args.stream = random.pick([7, 23, -1, "7", "x", null]);
  if (random.next() < 0.3) args.grid = [random.int(1, 200), random.int(1, 9), 1];
  if (random.next() < 0.3) args[randomName(random)] = randomValue(random, 3);
  return args;
}

/** A time in nanoseconds, exact, and one of its spellings in microseconds. */
function spellTime(nanoseconds: bigint, random: Random): string {
  const whole = nanoseconds / 1000n;
  const fraction = nanoseconds % 1000n;
  const digits = fraction.toString().padStart(3, "0");
  let text = `${whole}`;
  if (fraction !== 0n) text += `.${random.next() < 0.5 ? digits.replace(/0+$/, "") : digits}`;
  else if (random.next() < 0.2) text += ".000";
  else if (random.next() < 0.1) text += "e0";
  return random.next() < 0.1 ? `"${text}"` : text;
}

/** A trace file and the rows a reader must find in it. */
export interface RandomTrace {
  readonly text: string;
  readonly rows: readonly PlainRow[];
  readonly originUs: number;
  readonly metadata: Readonly<Record<string, unknown>>;
}

const numberOf = (value: unknown): number =>
  typeof value === "number" ? value : /^-?\d+$/.test(String(value)) ? Number(value) : Number.NaN;

/** The row of an event that JSON.parse has read; its exact time is given. */
function rowOf(event: Record<string, unknown>, startUs: number): PlainRow {
  const args = (event.args ?? {}) as Record<string, unknown>;
  const key = (value: unknown): string | number =>
    /^-?(0|[1-9]\d*)$/.test(String(value)) ? Number(value) : (value as string);
  const grid = args.grid as number[] | undefined;
  const stream = numberOf(args.stream);
  const phase = event.ph as string;
  return {
    phase: phase === "R" || phase === "I" ? "i" : phase,
    pid: key(event.pid),
    tid: key(event.tid),
    name: event.name as string,
    category: (event.cat ?? "") as string,
    startUs,
    durationUs: phase === "X" ? Math.max(0, Number(event.dur)) : 0,
    flowId: "stf".includes(phase) ? String(event.id) : undefined,
    correlation: (args.correlation as number | undefined) ?? -1,
    stream: Number.isNaN(stream) ? -1 : stream,
    gridBlocks: grid === undefined ? 0 : grid.reduce((product, n) => product * n, 1),
  };
}

/** A random trace of `count` events with a row each, among others without. */
export function randomTrace(random: Random, count: number): RandomTrace {
  const originNs = BigInt(random.pick([0, 1_740_461_679_470_630, 12, 9e15])) * 1000n;
  const texts: string[] = [];
  const times: bigint[] = [];
  const parsed: Record<string, unknown>[] = [];
  for (let i = 0; i < count; i++) {
    if (random.next() < 0.1) {
      texts.push(spell({ ph: "N", id: "0x1", name: "object", ts: 1, pid: 1, tid: 1 }, random));
    }
    const ns = originNs + BigInt(random.int(0, 2 ** 31)) * BigInt(random.pick([1, 1000]));
    const ph = random.pick(["X", "X", "X", "C", "s", "t", "f", "i", "I", "R"]);
    const fields: [string, string][] = [
      ["ph", `"${ph}"`],
      ["name", spellString(randomName(random), random)],
      ["pid", random.pick(["1", '"1"', '"Spans"', '""', "0"])],
      ["tid", random.pick(["2571", "7", '"Trace"', "-3"])],
      ["ts", spellTime(ns, random)],
    ];
    if (ph === "X") fields.push(["dur", random.pick(["0", "1.5", "-2", "85", "1e2", '"3"'])]);
    if ("stf".includes(ph)) fields.push(["id", random.pick(["5", '"0x1f"', "44449"])]);
    if (random.next() < 0.7) fields.push(["cat", spellString(randomName(random), random)]);
    if (random.next() < 0.7) fields.push(["args", spell(randomArgs(random), random)]);
    if (random.next() < 0.1) fields.push(["extra", spell(randomValue(random, 3), random)]);
    fields.sort(() => random.next() - 0.5);
    const s = (): string => space(random);
    const text = `{${fields
      .map(([k, v]) => `${s()}${spellString(k, random)}${s()}:${s()}${v}${s()}`)
      .join(",")}}`;
    texts.push(text);
    times.push(ns);
    parsed.push(JSON.parse(text) as Record<string, unknown>);
  }
  const earliest = times.reduce((a, b) => (b < a ? b : a), times[0] ?? 0n);
  const originUs = Number(earliest / 1000n);
  const rows = parsed.map((event, i) =>
    rowOf(event, Number((times[i] as bigint) - BigInt(originUs) * 1000n) / 1000),
  );
  const metadata = { before: randomValue(random, 3), after: randomValue(random, 3) };
  const s = (): string => space(random);
  const text =
    `${s()}{${s()}"before":${s()}${spell(metadata.before, random)},` +
    `${s()}"traceEvents"${s()}:[${s()}${texts.join(`${s()},${s()}`)}${s()}]${s()},` +
    `"after":${spell(metadata.after, random)}${s()}}${s()}`;
  return { text, rows, originUs, metadata };
}

/** `bytes` in pieces of random sizes, some empty. */
export function randomPieces(bytes: Uint8Array, random: Random): Uint8Array[] {
  const largest = random.pick([1, 3, 17, 1000]);
  const pieces: Uint8Array[] = [];
  for (let at = 0; at < bytes.length; ) {
    const size = random.int(0, largest + 1);
    pieces.push(bytes.subarray(at, at + size));
    at += size;
  }
  return pieces;
}
