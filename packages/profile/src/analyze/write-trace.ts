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

/** Args that were kept, as other readers take them: without NaN and raw control characters. */
function keptArgs(text: string): string {
  return /[Nn]a[Nn]|[Ii]nf|[^ -\uffff]/.test(text) ? JSON.stringify(parseLenient(text)) : text;
}

/**
 * `base + us` (`us` ≥ 0) in decimal, with the digits of `us` behind the point: as a float64 the sum
 * of a time of today and a fraction has lost most of them.
 */
function absoluteTime(base: number, us: number): string {
  const sum = base + Math.floor(us);
  if (sum < 0 || !Number.isSafeInteger(sum)) return String(base + us);
  if (Number.isInteger(us)) return String(sum);
  const rounded = us.toFixed(6);
  // Nearer than arithmetic is exact: then the short spelling is the one that was meant.
  const meant = Math.abs(Number(rounded) - us) <= us * 2 ** -50;
  const text = meant ? rounded.replace(/\.?0+$/, "") : String(us);
  if (text.includes("e")) return String(base + us);
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
  /** Spelled names, and values. */
  readonly #argColumns: readonly (readonly [string, Float64Array])[];

  constructor(table: EventTable) {
    this.#table = table;
    this.#lanes = table.lanes.map(
      ({ pid, tid }) => `, "pid": ${JSON.stringify(pid)}, "tid": ${JSON.stringify(tid)}`,
    );
    // Those that are columns anyway come from there.
    this.#argColumns = Object.entries(table.argColumns)
      .filter(([name]) => name !== "stream" && name !== "correlation" && name !== "grid")
      .map(([name, column]) => [JSON.stringify(name), column]);
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
    const args = this.#args(row);
    let text = `{"ph": "${String.fromCharCode(phase)}"`;
    if (flow !== NO_STRING) text += `, "id": ${this.#string(flow)}`;
    else if (phase === PH_b) text += `, "id": "row ${row}"`;
    if (table.strings[category] !== "") text += `, "cat": ${this.#string(category)}`;
    text += `, "name": ${this.#string(table.name[row] as number)}`;
    text += this.#lanes[table.lane[row] as number];
    text += `, "ts": ${absoluteTime(table.originUs, table.startUs[row] as number)}`;
    if (phase === PH_X) text += `, "dur": ${table.durationUs[row]}`;
    else if (phase === PH_f) text += ', "bp": "e"';
    else if (phase === PH_i) text += ', "s": "t"';
    return args === "" ? `${text}}` : `${text}, "args": ${args}}`;
  }

  /** The args that were kept, or those the columns were read from. */
  #args(row: number): string {
    const table = this.#table;
    const kept = table.argsText(row);
    if (kept !== undefined) return keptArgs(kept);
    const stream = table.stream[row] as number;
    const correlation = table.correlation[row] as number;
    const blocks = table.gridBlocks[row] as number;
    let text = "";
    for (const [name, column] of this.#argColumns) {
      const value = column[row] as number;
      if (Number.isFinite(value)) text += `, ${name}: ${value}`;
    }
    if (stream !== -1) text += `, "stream": ${stream}`;
    if (correlation !== -1) text += `, "correlation": ${correlation}`;
    if (blocks !== 0) text += `, "grid": [${blocks}, 1, 1]`;
    return text === "" ? "" : `{${text.slice(2)}}`;
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
