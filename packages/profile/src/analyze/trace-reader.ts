// The grammar around the events: an object with `traceEvents` among other keys, or a bare array.
// Bytes are pushed in, in pieces of any size; a window holds what the event at hand needs and no
// more, so that memory follows the table and not the file.

import { InputError } from "@open-infra/errors";
import { EventTableBuilder, type EventTableBuilderOptions } from "./builder.ts";
import { EventReader } from "./event-reader.ts";
import type { EventTable } from "./event-table.ts";
import { JsonCursor, NEED_MORE, ScanProblem } from "./json-cursor.ts";
import { parseLenient } from "./lenient-json.ts";
import { LimitReached, resolveLimits } from "./limits.ts";
import { TraceError, type TraceProblem } from "./trace-error.ts";

/** How a trace is read. */
export interface TraceReaderOptions extends Omit<EventTableBuilderOptions, "keepArgs"> {
  /**
   * Keep the JSON text of `args`: of all events, or of counters alone, whose series are in there.
   * @default false
   */
  readonly keepArgs?: boolean | "counters" | undefined;
  /**
   * Leave out events with unusable fields, and keep what was read of a file that breaks off or
   * breaks; `notes` say so. Without it both are a TraceError. @default false
   */
  readonly tolerant?: boolean | undefined;
  /**
   * First size of the window the text passes through, at least 16; it doubles where one event needs
   * more. @default 262_144
   */
  readonly windowBytes?: number | undefined;
}

/** First size of the window; small enough to stay in a core's cache. */
const WINDOW_BYTES = 1 << 18;

/** Where in the grammar the reader is. */
type State =
  | "start"
  | "key" // of the top level, or its closing brace, at first
  | "afterValue" // of the top level
  | "firstEvent" // or the end of the array
  | "event" // after a comma
  | "afterEvent"
  | "end";

/** Reads a trace piece by piece: `push(bytes)` as they come, then `finish()` gives the table. */
export class TraceReader {
  readonly #tolerant: boolean;
  readonly #maxValueBytes: number;
  readonly #cursor: JsonCursor;
  readonly #builder: EventTableBuilder;
  readonly #events: EventReader;
  readonly #metadata = new Map<string, unknown>();
  #state: State = "start";
  #isArray = false;
  #sawEvents = false;
  /** Bytes of text before the window. */
  #discarded = 0;
  /** Everything before this place of the window is done with. */
  #mark = 0;
  #eventIndex = 0;
  #malformed = 0;
  #stopped: TraceError | undefined;
  #unterminated = false;

  constructor(options: TraceReaderOptions = {}) {
    const { keepArgs, windowBytes = WINDOW_BYTES, ...rest } = options;
    if (!(Number.isSafeInteger(windowBytes) && windowBytes >= 16)) {
      throw new InputError("windowBytes", String(windowBytes), "an integer of at least 16");
    }
    const limits = resolveLimits(options.limits);
    this.#tolerant = options.tolerant ?? false;
    this.#maxValueBytes = limits.maxValueBytes;
    this.#cursor = new JsonCursor(limits.maxDepth);
    this.#cursor.bytes = new Uint8Array(windowBytes);
    this.#builder = new EventTableBuilder({
      ...rest,
      keepArgs: keepArgs !== undefined && keepArgs !== false,
    });
    this.#events = new EventReader(this.#cursor, this.#builder, keepArgs);
  }

  /** Rows so far. */
  get length(): number {
    return this.#builder.length;
  }

  /** Bytes of text pushed so far. */
  get bytesPushed(): number {
    return this.#discarded + this.#cursor.end;
  }

  /** A tolerant reader has met the end of what it can read; more bytes are ignored. */
  get stopped(): boolean {
    return this.#stopped !== undefined;
  }

  /** Takes the next bytes of the text. @throws TraceError */
  push(piece: Uint8Array): void {
    const cursor = this.#cursor;
    for (let from = 0; from < piece.length && this.#stopped === undefined; ) {
      // One byte stays 0, which ends every loop of the cursor.
      const room = cursor.bytes.length - 1 - cursor.end;
      const part = piece.subarray(from, from + room);
      cursor.bytes.set(part, cursor.end);
      cursor.end += part.length;
      cursor.bytes[cursor.end] = 0;
      from += part.length;
      if (cursor.end === cursor.bytes.length - 1) {
        this.#run();
        this.#makeRoom();
      }
    }
  }

  /** The text ends before its end because of `cause`; a tolerant reader keeps what it has. */
  interrupt(problem: TraceProblem, message: string, cause: unknown): void {
    if (this.#stopped !== undefined) return;
    this.#run();
    if (this.#stopped === undefined) this.#fail(problem, message, this.#cursor.end, cause);
  }

  /** The text is complete: the table. The reader must not be used again. @throws TraceError */
  finish(): EventTable {
    if (this.#stopped === undefined) {
      this.#run();
      if (this.#stopped === undefined && this.#state !== "end") this.#endEarly();
    }
    const skippedPhases: Record<string, number> = {};
    this.#events.skipped.forEach((count, code) => {
      if (count > 0) skippedPhases[String.fromCharCode(code)] = count;
    });
    return this.#builder.finish(Object.fromEntries(this.#metadata), {
      skippedPhases,
      missingDurations: this.#events.missingDurations,
      malformedEvents: this.#malformed,
      unterminatedArray: this.#unterminated,
      ...(this.#stopped && { stopped: this.#stopped }),
    });
  }

  /** The text ended where more was to come. */
  #endEarly(): void {
    const cursor = this.#cursor;
    cursor.at = this.#mark;
    const nothingLeft = cursor.space() === 0 && cursor.at >= cursor.end;
    // The array form may lack its end, so that a program that crashed left a trace.
    if (this.#isArray && nothingLeft) {
      this.#unterminated = true;
      return;
    }
    const inside =
      this.#state === "start"
        ? "before its first '{' or '['"
        : this.#state === "key" || this.#state === "afterValue"
          ? "inside its top-level object"
          : nothingLeft
            ? "inside traceEvents, which lacks its ']'"
            : "inside an event";
    const read = this.#builder.length;
    const kept = read === 0 ? "" : `, after ${read} events; tolerant reading keeps them`;
    const isEmpty = this.#state === "start" && nothingLeft;
    const message = isEmpty ? "the trace is empty" : `the trace ends ${inside}${kept}`;
    this.#fail("truncated", message, cursor.end);
  }

  /** Reads as far as the window goes. */
  #run(): void {
    const cursor = this.#cursor;
    cursor.at = this.#mark;
    for (;;) {
      try {
        while (this.#stopped === undefined && this.#step()) this.#mark = cursor.at;
        return;
      } catch (error) {
        if (error === NEED_MORE) return;
        if (!this.#recover(error)) return;
      }
    }
  }

  /** After a problem: true to go on reading from the mark. */
  #recover(error: unknown): boolean {
    if (error instanceof LimitReached) {
      this.#fail("limit", `the trace has ${error.message}`, this.#mark, error);
      return false;
    }
    if (!(error instanceof ScanProblem)) throw error;
    const inEvents = this.#state === "event" || this.#state === "firstEvent";
    if (!(this.#tolerant && error.problem === "value" && inEvents)) {
      this.#fail(error.problem, error.message, error.at);
      return false;
    }
    const cursor = this.#cursor;
    cursor.at = this.#mark;
    try {
      cursor.space();
      cursor.skip();
    } catch (problem) {
      if (problem === NEED_MORE) return false;
      return this.#recover(problem);
    }
    this.#malformed++;
    this.#afterEvent();
    this.#mark = cursor.at;
    return true;
  }

  /** Raises the problem, or stops a tolerant reader that has something to keep. */
  #fail(problem: TraceProblem, message: string, at: number, cause?: unknown): void {
    const inEvents =
      this.#state === "event" || this.#state === "firstEvent" || this.#state === "afterEvent";
    const error = new TraceError(
      problem,
      message,
      {
        byteOffset: this.#discarded + at,
        eventIndex: inEvents ? this.#eventIndex : undefined,
        eventsRead: this.#builder.length,
      },
      cause === undefined ? undefined : { cause },
    );
    if (!this.#tolerant || !this.#sawEvents) throw error;
    this.#stopped = error;
  }

  /** Moves what is not done with to the front of the window, which grows if that is most of it. */
  #makeRoom(): void {
    const cursor = this.#cursor;
    const left = cursor.end - this.#mark;
    this.#discarded += this.#mark;
    if (left * 2 > cursor.bytes.length) {
      if (left > this.#maxValueBytes) {
        const what = this.#state === "afterValue" ? "a value" : "an event or a top-level value";
        const message = `${what} is longer than ${this.#maxValueBytes} bytes`;
        this.#discarded -= this.#mark;
        this.#fail("limit", `${message} (limits.maxValueBytes)`, this.#mark);
        return;
      }
      const bytes = new Uint8Array(cursor.bytes.length * 2);
      bytes.set(cursor.bytes.subarray(this.#mark, cursor.end));
      cursor.bytes = bytes;
    } else {
      cursor.bytes.copyWithin(0, this.#mark, cursor.end);
    }
    cursor.end = left;
    cursor.bytes[left] = 0;
    this.#mark = 0;
  }

  /**
   * Reads one token or event. State changes last, so that a step that ran out of bytes can be taken
   * again. False at the end of the window.
   */
  #step(): boolean {
    const cursor = this.#cursor;
    const byte = cursor.space();
    // White space is done with, however much there is of it.
    this.#mark = cursor.at;
    if (cursor.at >= cursor.end) return false;
    switch (this.#state) {
      case "afterEvent":
        if (byte === 44) this.#state = "event";
        else if (byte === 93) this.#endEvents();
        else cursor.unexpected("',' or ']'");
        cursor.at++;
        return true;
      case "firstEvent":
      case "event":
        return this.#event(byte);
      case "start":
        return this.#start(byte);
      case "key":
      case "afterValue":
        return this.#topLevel(byte);
      default:
        return cursor.unexpected("the end of the text");
    }
  }

  #event(byte: number): boolean {
    const cursor = this.#cursor;
    if (byte === 123) {
      this.#events.read();
      this.#afterEvent();
    } else if (byte === 93) {
      // Also after a comma, which writers that do not know the last event leave.
      cursor.at++;
      this.#endEvents();
    } else {
      const start = cursor.at;
      cursor.skip();
      const got = cursor.text(start, Math.min(cursor.at, start + 40));
      throw new ScanProblem("value", `an event is ${got}; expected an object`, start);
    }
    return true;
  }

  #afterEvent(): void {
    this.#eventIndex++;
    this.#state = "afterEvent";
  }

  #endEvents(): void {
    this.#state = this.#isArray ? "end" : "afterValue";
  }

  #start(byte: number): boolean {
    const cursor = this.#cursor;
    if (byte === 0xef && this.#discarded + cursor.at === 0) {
      if (cursor.end < 3) return false;
      if (cursor.bytes[1] === 0xbb && cursor.bytes[2] === 0xbf) {
        cursor.at = 3;
        return true;
      }
    }
    if (byte === 91) {
      this.#isArray = true;
      this.#sawEvents = true;
      this.#state = "firstEvent";
    } else if (byte === 123) this.#state = "key";
    else cursor.unexpected("'{' or '[', as a Chrome trace in JSON begins");
    cursor.at++;
    return true;
  }

  /** At a key of the top level, or at what follows a value. */
  #topLevel(byte: number): boolean {
    const cursor = this.#cursor;
    if (byte === 125) {
      if (!this.#sawEvents) {
        throw new ScanProblem("syntax", "the top-level object has no traceEvents", cursor.at);
      }
      cursor.at++;
      this.#state = "end";
      return true;
    }
    if (this.#state === "afterValue") {
      if (byte !== 44) cursor.unexpected("',' or '}'");
      cursor.at++;
      if (cursor.space() !== 34) cursor.unexpected("a key");
    } else if (byte !== 34) cursor.unexpected("a key or '}'");
    cursor.string();
    const key = cursor.stringText();
    const first = cursor.colon();
    if (key === "traceEvents") {
      if (first !== 91) cursor.unexpected("'[', because traceEvents is an array");
      cursor.at++;
      this.#sawEvents = true;
      this.#state = "firstEvent";
      return true;
    }
    this.#metadata.set(key, this.#value());
    this.#state = "afterValue";
    return true;
  }

  /** A value of the top level, parsed. */
  #value(): unknown {
    const cursor = this.#cursor;
    const start = cursor.at;
    cursor.skip();
    // A number might go on.
    if (cursor.at >= cursor.end) cursor.needMore();
    try {
      return parseLenient(cursor.text(start, cursor.at));
    } catch (error) {
      throw new ScanProblem("syntax", `a value is no JSON: ${(error as Error).message}`, start);
    }
  }
}
