// Reads one event object at the cursor into the builder. Keys are told apart by their bytes; what
// no column needs is passed over. Nothing reaches the builder before the event's closing brace has
// been seen, so that an event cut by the window's end can be read again.

import { ArgsReader } from "./args-reader.ts";
import { type EventTableBuilder, NO_STRING } from "./builder.ts";
import { type JsonCursor, NumberParts, ScanProblem } from "./json-cursor.ts";
import type { LaneKey } from "./lane-table.ts";
import { describeLane } from "./metadata-event.ts";
import { hashBytes } from "./string-table.ts";

/** A string field of the event being read: where it is in the window. */
class StringField {
  present = false;
  start = 0;
  end = 0;
  hash = 0;
  escaped = false;
}

/** A pid or tid of the event being read. */
class KeyField {
  value = 0;
  /** Set where it is not a number. */
  text: string | undefined = undefined;

  get key(): LaneKey {
    return this.text ?? this.value;
  }
}

const encoder = new TextEncoder();
/** Letters of `ph` that become a row as they are, by code; `I` and `R` become `i`. */
const rowPhase = new Uint8Array(128);
for (const letter of "XBCstfi") rowPhase[letter.charCodeAt(0)] = letter.charCodeAt(0);
rowPhase["I".charCodeAt(0)] = "i".charCodeAt(0);
rowPhase["R".charCodeAt(0)] = "i".charCodeAt(0);

const PH_B = 66;
const PH_C = 67;
const PH_E = 69;
const PH_F = 70;
const PH_M = 77;
const PH_S = 83;
const PH_X = 88;
const PH_b = 98;
const PH_e = 101;

/** Keys of an event that the reader looks at. */
const KEY_OTHER = 0;
const KEY_PH = 1;
const KEY_TS = 2;
const KEY_DUR = 3;
const KEY_NAME = 4;
const KEY_CAT = 5;
const KEY_PID = 6;
const KEY_TID = 7;
const KEY_ARGS = 8;
const KEY_ID = 9;
const KEY_ID2 = 10;
const KEY_SCOPE = 11;

/** Which key `bytes[start..end)` is, by its length and letters. */
function keyOf(bytes: Uint8Array, start: number, end: number): number {
  const first = bytes[start] as number;
  const second = bytes[start + 1] as number;
  const third = bytes[start + 2] as number;
  const last = bytes[end - 1] as number;
  switch (end - start) {
    case 2:
      if (first === 112 && second === 104) return KEY_PH;
      if (first === 116 && second === 115) return KEY_TS;
      return first === 105 && second === 100 ? KEY_ID : KEY_OTHER;
    case 3:
      if (second === 105 && third === 100) {
        if (first === 112) return KEY_PID;
        return first === 116 ? KEY_TID : KEY_OTHER;
      }
      if (first === 100 && second === 117 && third === 114) return KEY_DUR;
      if (first === 99 && second === 97 && third === 116) return KEY_CAT;
      return first === 105 && second === 100 && third === 50 ? KEY_ID2 : KEY_OTHER;
    case 4:
      if (first === 110 && second === 97 && third === 109 && last === 101) return KEY_NAME;
      if (first === 97 && second === 114 && third === 103 && last === 115) return KEY_ARGS;
      return KEY_OTHER;
    case 5:
      if (first !== 115 || second !== 99 || third !== 111) return KEY_OTHER;
      return bytes[start + 3] === 112 && last === 101 ? KEY_SCOPE : KEY_OTHER;
    default:
      return KEY_OTHER;
  }
}

/** Reads the events of `traceEvents` into a builder, one at a time. */
export class EventReader {
  readonly #cursor: JsonCursor;
  readonly #builder: EventTableBuilder;
  readonly #args: ArgsReader;
  readonly #keepArgs: boolean;
  readonly #keepCounters: boolean;

  #phase = 0;
  readonly #name = new StringField();
  readonly #category = new StringField();
  readonly #id = new StringField();
  /** `id2` and `scope`, which only async events have, as JSON text. */
  #asyncId = "";
  readonly #pid = new KeyField();
  readonly #tid = new KeyField();
  #hasTime = false;
  readonly #time = new NumberParts();
  #durationUs = 0;
  #hasDuration = false;

  /** Events without a row, by code of `ph`. */
  readonly skipped: Uint32Array = new Uint32Array(128);
  missingDurations = 0;

  constructor(
    cursor: JsonCursor,
    builder: EventTableBuilder,
    keepArgs: boolean | "counters" | undefined,
  ) {
    this.#cursor = cursor;
    this.#builder = builder;
    this.#args = new ArgsReader(cursor, builder.argNames, builder.argValues);
    this.#keepArgs = keepArgs === true;
    this.#keepCounters = keepArgs === true || keepArgs === "counters";
  }

  /** Reads the event whose opening brace is at the cursor, and goes past it. */
  read(): void {
    const cursor = this.#cursor;
    const start = cursor.at;
    this.#reset();
    // Writers that end each event with a comma put an empty one last.
    if (!cursor.firstKey()) return;
    do {
      cursor.key();
      if (cursor.stringEscaped) {
        const key = encoder.encode(cursor.stringText());
        this.#field(key, 0, key.length);
      } else this.#field(cursor.bytes, cursor.stringStart, cursor.stringEnd);
    } while (cursor.nextKey());
    this.#finish(start);
  }

  #reset(): void {
    this.#phase = 0;
    this.#name.present = false;
    this.#category.present = false;
    this.#id.present = false;
    this.#asyncId = "";
    this.#pid.value = 0;
    this.#pid.text = undefined;
    this.#tid.value = 0;
    this.#tid.text = undefined;
    this.#hasTime = false;
    this.#durationUs = 0;
    this.#hasDuration = false;
    this.#args.reset();
  }

  /** Reads the value that follows the key `bytes[start..end)`; the cursor is past the key. */
  #field(bytes: Uint8Array, start: number, end: number): void {
    const byte = this.#cursor.colon();
    switch (keyOf(bytes, start, end)) {
      case KEY_PH:
        this.#readPhase(byte);
        break;
      case KEY_TS:
        this.#readTime();
        break;
      case KEY_DUR:
        this.#readDuration();
        break;
      case KEY_NAME:
        this.#readText(byte, this.#name, "name");
        break;
      case KEY_CAT:
        this.#readText(byte, this.#category, "cat");
        break;
      case KEY_PID:
        this.#readKey(byte, this.#pid, "pid");
        break;
      case KEY_TID:
        this.#readKey(byte, this.#tid, "tid");
        break;
      case KEY_ARGS:
        this.#args.read(byte);
        break;
      case KEY_ID:
        this.#readText(byte, this.#id, "id");
        break;
      case KEY_ID2:
      case KEY_SCOPE:
        this.#readAsyncId();
        break;
      default:
        this.#cursor.skip();
    }
  }

  /** A field came as something it cannot be. */
  #unusable(field: string, start: number, expected: string): never {
    const cursor = this.#cursor;
    if (cursor.at >= cursor.end) cursor.needMore();
    const shown = cursor.text(start, Math.min(cursor.at, start + 40));
    const cut = cursor.at > start + 40 ? "…" : "";
    throw new ScanProblem("value", `${field} is ${shown}${cut}; expected ${expected}`, start);
  }

  #readPhase(byte: number): void {
    const cursor = this.#cursor;
    const start = cursor.at;
    if (byte === 34) {
      cursor.string();
      const { stringStart, stringEnd } = cursor;
      const code = cursor.bytes[stringStart] as number;
      if (stringEnd === stringStart + 1 && code < 128) {
        this.#phase = code;
        return;
      }
      if (cursor.stringEscaped) {
        const text = cursor.stringText();
        this.#phase = text.charCodeAt(0);
        if (text.length === 1 && this.#phase < 128) return;
      }
    } else cursor.skip();
    this.#unusable("ph", start, "one ASCII letter in quotes");
  }

  #readTime(): void {
    const cursor = this.#cursor;
    const start = cursor.at;
    if (!cursor.number() || !cursor.numberIsFinite()) {
      this.#unusable("ts", start, "a finite number of microseconds");
    }
    cursor.takeNumber(this.#time);
    this.#hasTime = true;
  }

  #readDuration(): void {
    const cursor = this.#cursor;
    const start = cursor.at;
    if (cursor.number()) {
      this.#durationUs = cursor.numberValue();
      this.#hasDuration = true;
      if (Number.isFinite(this.#durationUs)) return;
    }
    this.#unusable("dur", start, "a finite number of microseconds");
  }

  #readText(byte: number, field: StringField, name: string): void {
    const cursor = this.#cursor;
    const start = cursor.at;
    if (byte === 34) {
      cursor.string();
      field.start = cursor.stringStart;
      field.end = cursor.stringEnd;
      field.hash = cursor.stringHash;
      field.escaped = cursor.stringEscaped;
      field.present = true;
      return;
    }
    cursor.skip();
    if (byte === 123 || byte === 91) this.#unusable(name, start, "a string or a number");
    if (cursor.at >= cursor.end) cursor.needMore();
    // null says nothing; numbers and literals are their text.
    field.present = byte !== 110;
    field.start = start;
    field.end = cursor.at;
    field.hash = hashBytes(cursor.bytes, start, cursor.at);
    field.escaped = false;
  }

  #readKey(byte: number, field: KeyField, name: string): void {
    const cursor = this.#cursor;
    const start = cursor.at;
    if (byte === 34) {
      cursor.string();
      field.text = cursor.stringText();
      return;
    }
    field.text = undefined;
    field.value = 0;
    if (byte === 110) {
      cursor.skip();
      return;
    }
    if (!cursor.number()) this.#unusable(name, start, "a number or a string");
    field.value = cursor.numberValue();
    if (!Number.isFinite(field.value)) this.#unusable(name, start, "a number or a string");
  }

  #readAsyncId(): void {
    const cursor = this.#cursor;
    const start = cursor.at;
    cursor.skip();
    this.#asyncId += ` ${cursor.text(start, cursor.at)}`;
  }

  #intern(field: StringField): number {
    if (!field.present) return 0;
    const cursor = this.#cursor;
    const { start, end, escaped } = field;
    if (escaped) return this.#builder.intern(cursor.unescape(start, end, true));
    return this.#builder.strings.intern(cursor.bytes, start, end, field.hash);
  }

  #text(field: StringField): string {
    return field.present ? this.#cursor.unescape(field.start, field.end, field.escaped) : "";
  }

  #lane(): number {
    const { lanes } = this.#builder;
    if (this.#pid.text === undefined && this.#tid.text === undefined) {
      return lanes.numericLane(this.#pid.value, this.#tid.value);
    }
    return lanes.lane(this.#pid.key, this.#tid.key);
  }

  /** The event is whole: hands it to the builder. `start` is where it began. */
  #finish(start: number): void {
    const phase = this.#phase;
    const row = rowPhase[phase] as number;
    if (row !== 0) {
      this.#append(row, start);
      return;
    }
    switch (phase) {
      case PH_M:
        this.#describe();
        break;
      case PH_E:
        this.#builder.end(this.#lane(), this.#startUs(start));
        break;
      case PH_b:
      case PH_S:
      case PH_e:
      case PH_F:
        this.#asyncEnd(start, phase === PH_b || phase === PH_S);
        break;
      case 0:
        throw new ScanProblem("value", "ph is missing; expected one letter", start);
      default:
        (this.skipped[phase] as number)++;
    }
  }

  /** µs from the builder's base. */
  #startUs(start: number): number {
    if (!this.#hasTime) {
      const message = "ts is missing; expected a finite number of microseconds";
      throw new ScanProblem("value", message, start);
    }
    const builder = this.#builder;
    if (Number.isNaN(builder.baseUs)) builder.baseUs = this.#time.floor();
    return this.#time.minus(builder.baseUs);
  }

  #append(phase: number, start: number): number {
    const builder = this.#builder;
    const args = this.#args;
    const startUs = this.#startUs(start);
    const lane = this.#lane();
    if (phase === PH_X && !this.#hasDuration) this.missingDurations++;
    const flow = phase === 115 || phase === 116 || phase === 102;
    const keep = this.#keepArgs || (this.#keepCounters && phase === PH_C);
    const row = builder.append(
      phase,
      lane,
      this.#intern(this.#name),
      this.#intern(this.#category),
      startUs,
      phase === PH_X ? this.#durationUs : 0,
      flow && this.#id.present ? this.#intern(this.#id) : NO_STRING,
      args.correlation,
      args.stream,
      args.gridBlocks,
      this.#cursor.bytes,
      keep ? args.start : 0,
      keep ? args.end : 0,
    );
    if (phase === PH_B) builder.begin(row, lane);
    return row;
  }

  #asyncEnd(start: number, begins: boolean): void {
    const row = begins ? this.#append(PH_b, start) : -1;
    this.#builder.async({
      row,
      pid: this.#pid.key,
      category: this.#text(this.#category),
      id: `${this.#text(this.#id)}${this.#asyncId}`,
      atUs: this.#startUs(start),
    });
  }

  #describe(): void {
    const { start, end } = this.#args;
    const args = this.#cursor.text(start, end);
    describeLane(this.#builder, this.#text(this.#name), this.#pid.key, this.#tid.key, args);
  }
}
