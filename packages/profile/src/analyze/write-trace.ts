// Writes a table as Chrome trace JSON, as Kineto does: what `readTrace` reads back row for row, and
// Perfetto and chrome://tracing open. Also a selection of rows, for a look at one place elsewhere.

import type { EventTable, TraceLane } from "./event-table.ts";
import { parseLenient } from "./lenient-json.ts";

/** What is written. */
export interface WriteTraceOptions {
  /** Rows to write, in this order; their lanes come with them. @default all */
  readonly rows?: Iterable<number> | undefined;
  /** Keys of the top level. @default those of the table */
  readonly metadata?: Readonly<Record<string, unknown>> | undefined;
}

/** Characters gathered before they are handed out. */
const PIECE_LENGTH = 1 << 16;
const NO_STRING = 0xffffffff;
const PH_X = 88;
const PH_f = 102;
const PH_i = 105;
const PH_b = 98;

/** What Kineto's own numbers in args become columns of; the writer gives them back. */
function argsOf(table: EventTable, row: number): string {
  const kept = table.argsText(row);
  // Other readers know no NaN and no raw control characters; white space goes as well.
  if (kept !== undefined) {
    return /[Nn]a[Nn]|[Ii]nf|[^ -\uffff]/.test(kept) ? JSON.stringify(parseLenient(kept)) : kept;
  }
  const args: Record<string, unknown> = {};
  for (const [name, column] of Object.entries(table.argColumns)) {
    const value = column[row] as number;
    if (!Number.isNaN(value)) args[name] = value;
  }
  const stream = table.stream[row] as number;
  const correlation = table.correlation[row] as number;
  const blocks = table.gridBlocks[row] as number;
  if (stream !== -1) args.stream = stream;
  if (correlation !== -1) args.correlation = correlation;
  if (blocks !== 0) args.grid = [blocks, 1, 1];
  return Object.keys(args).length === 0 ? "" : JSON.stringify(args);
}

/**
 * `base + us` (`us` ≥ 0) in decimal, with the digits of `us` behind the point: as a float64 the sum
 * of a time of today and a fraction has lost most of them.
 */
function absoluteTime(base: number, us: number): string {
  const sum = base + Math.floor(us);
  if (sum < 0 || !Number.isSafeInteger(sum)) return JSON.stringify(base + us);
  const rounded = us.toFixed(6);
  // Nearer than arithmetic is exact: then the short spelling is the one that was meant.
  const meant = Math.abs(Number(rounded) - us) <= us * 2 ** -50;
  const text = meant ? rounded.replace(/\.?0+$/, "") : String(us);
  if (text.includes("e")) return JSON.stringify(base + us);
  const point = text.indexOf(".");
  const whole = base + Number(point < 0 ? text : text.slice(0, point));
  return point < 0 ? String(whole) : `${whole}${text.slice(point)}`;
}

function describeLane(lane: TraceLane, name: string, args: unknown): string {
  return JSON.stringify({ name, ph: "M", ts: 0, pid: lane.pid, tid: lane.tid, args });
}

/** Metadata events of the lanes that `used` marks, processes before their threads. */
function* descriptions(lanes: readonly TraceLane[], used: Uint8Array): Generator<string> {
  const seen = new Set<string | number>();
  for (const [i, lane] of lanes.entries()) {
    if (used[i] === 0) continue;
    if (!seen.has(lane.pid)) {
      seen.add(lane.pid);
      if (lane.processName !== "") {
        yield describeLane(lane, "process_name", { name: lane.processName });
      }
      if (lane.processLabels !== "") {
        yield describeLane(lane, "process_labels", { labels: lane.processLabels });
      }
      yield describeLane(lane, "process_sort_index", { sort_index: lane.processSortIndex });
    }
    if (lane.threadName !== "") yield describeLane(lane, "thread_name", { name: lane.threadName });
    yield describeLane(lane, "thread_sort_index", { sort_index: lane.threadSortIndex });
  }
}

/** Turns rows into text; strings and lanes are spelled once. */
class RowWriter {
  readonly #table: EventTable;
  readonly #strings: (string | undefined)[] = [];
  readonly #lanes: readonly string[];

  constructor(table: EventTable) {
    this.#table = table;
    this.#lanes = table.lanes.map(
      ({ pid, tid }) => `"pid": ${JSON.stringify(pid)}, "tid": ${JSON.stringify(tid)}`,
    );
  }

  #string(index: number): string {
    this.#strings[index] ??= JSON.stringify(this.#table.strings[index]);
    return this.#strings[index];
  }

  row(row: number): string {
    const table = this.#table;
    const phase = table.phase[row] as number;
    const category = table.category[row] as number;
    const flow = table.flowId[row] as number;
    const id = flow !== NO_STRING ? this.#string(flow) : `"row ${row}"`;
    const args = argsOf(table, row);
    return [
      `{"ph": "${String.fromCharCode(phase)}"`,
      flow !== NO_STRING || phase === PH_b ? `, "id": ${id}` : "",
      table.strings[category] === "" ? "" : `, "cat": ${this.#string(category)}`,
      `, "name": ${this.#string(table.name[row] as number)}`,
      `, ${this.#lanes[table.lane[row] as number]}`,
      `, "ts": ${absoluteTime(table.originUs, table.startUs[row] as number)}`,
      phase === PH_X ? `, "dur": ${JSON.stringify(table.durationUs[row])}` : "",
      phase === PH_f ? ', "bp": "e"' : "",
      phase === PH_i ? ', "s": "t"' : "",
      args === "" ? "" : `, "args": ${args}`,
      "}",
    ].join("");
  }
}

/**
 * The JSON text of `table`, in pieces: to be joined, sent, or made a Blob of. Kept args are written
 * as they were; without them the args are what the columns hold. An arrow's `bp` is "e", and an
 * instant's scope its thread, because the table does not keep them.
 */
export function* writeTrace(
  table: EventTable,
  options: WriteTraceOptions = {},
): Generator<string, void, undefined> {
  const rows = options.rows === undefined ? undefined : [...options.rows];
  const used = new Uint8Array(table.lanes.length);
  if (rows === undefined) used.fill(1);
  else for (const row of rows) used[table.lane[row] as number] = 1;
  const top = JSON.stringify({ schemaVersion: 1, ...(options.metadata ?? table.metadata) });
  let text = `${top.slice(0, -1)},\n"traceEvents": [`;
  let separator = "\n";
  for (const description of descriptions(table.lanes, used)) {
    text += `${separator}${description}`;
    separator = ",\n";
  }
  const writer = new RowWriter(table);
  const count = rows?.length ?? table.length;
  for (let i = 0; i < count; i++) {
    text += `${separator}${writer.row(rows === undefined ? i : (rows[i] as number))}`;
    separator = ",\n";
    if (text.length < PIECE_LENGTH) continue;
    yield text;
    text = "";
  }
  yield `${text}\n]}\n`;
}
