// Reads a whole trace from wherever it is: text, bytes, a stream of pieces, plain or gzip.

import { InputError } from "@open-infra/errors";
import type { EventTable } from "./event-table.ts";
import { GzipProblem, gunzip, isGzip } from "./gunzip.ts";
import { TraceReader, type TraceReaderOptions } from "./trace-reader.ts";

/**
 * Where a trace comes from: JSON text, or its bytes, plain or gzip. Pieces of bytes may have any
 * size; pieces of text (`writeTrace` and `recorder.text()` give such) must be whole characters.
 */
export type TraceSource =
  | string
  | Uint8Array
  | ArrayBuffer
  | Iterable<Uint8Array | string>
  | AsyncIterable<Uint8Array | string>
  | ReadableStream<Uint8Array>;

/** How a trace is read. */
export interface ReadTraceOptions extends TraceReaderOptions {
  /** Called with the bytes of the source read so far, every megabyte or so. */
  readonly onProgress?: ((bytes: number) => void) | undefined;
  /** Stops the reading; `readTrace` rejects with its reason. */
  readonly signal?: AbortSignal | undefined;
}

/** Bytes of a source that is in memory taken at once; then others may run. */
const PIECE_BYTES = 1 << 20;
/** Pieces between two pauses of a source that is in memory. */
const PIECES_A_TURN = 8;

/** Pieces of text as UTF-8, not in the middle of a surrogate pair. */
function* textPieces(text: string): Generator<Uint8Array> {
  const encoder = new TextEncoder();
  for (let from = 0; from < text.length; ) {
    let to = Math.min(from + PIECE_BYTES, text.length);
    const last = text.charCodeAt(to - 1);
    if (to < text.length && last >= 0xd800 && last < 0xdc00) to--;
    yield encoder.encode(text.slice(from, to));
    from = to;
  }
}

function* bytePieces(bytes: Uint8Array): Generator<Uint8Array> {
  for (let from = 0; from < bytes.length; from += PIECE_BYTES) {
    yield bytes.subarray(from, from + PIECE_BYTES);
  }
}

/** Lets timers, signals and the page run in between. */
async function* withPauses(pieces: Iterable<Uint8Array>): AsyncGenerator<Uint8Array> {
  let taken = 0;
  for (const piece of pieces) {
    yield piece;
    if (++taken % PIECES_A_TURN === 0) await new Promise((resolve) => setTimeout(resolve, 0));
  }
}

/** A ReadableStream as an iterable, which not all browsers' are; a signal ends a wait for more. */
async function* streamPieces(
  stream: ReadableStream<Uint8Array>,
  signal: AbortSignal | undefined,
): AsyncGenerator<Uint8Array> {
  const reader = stream.getReader();
  const cancel = (): Promise<void> => reader.cancel(signal?.reason).catch(() => {});
  signal?.addEventListener("abort", cancel);
  try {
    for (;;) {
      const { done, value } = await reader.read();
      if (done) return;
      yield value;
    }
  } finally {
    signal?.removeEventListener("abort", cancel);
    // Also when the reading failed: whoever fills the stream may stop.
    await cancel();
  }
}

/** The same for pieces that come when they come; what they come from is left alone if it stalls. */
async function* abortable<T>(pieces: AsyncIterable<T>, signal: AbortSignal): AsyncGenerator<T> {
  const iterator = pieces[Symbol.asyncIterator]();
  // One promise a piece: racing all of them against one would keep them all until the end.
  let fail = (_reason: unknown): void => {};
  const abort = (): void => fail(signal.reason);
  const next = (): Promise<IteratorResult<T>> =>
    new Promise((resolve, reject) => {
      fail = reject;
      iterator.next().then(resolve, reject);
    });
  signal.addEventListener("abort", abort);
  try {
    for (;;) {
      const { done, value } = await next();
      if (done) return;
      yield value;
    }
  } finally {
    signal.removeEventListener("abort", abort);
    iterator.return?.().catch(() => {});
  }
}

type Pieces = Iterable<Uint8Array | string> | AsyncIterable<Uint8Array | string>;

function piecesOf(source: TraceSource, signal: AbortSignal | undefined): Pieces {
  if (typeof source === "string") return withPauses(textPieces(source));
  if (source instanceof ArrayBuffer) return withPauses(bytePieces(new Uint8Array(source)));
  if (ArrayBuffer.isView(source)) return withPauses(bytePieces(source));
  if (typeof source === "object" && source !== null) {
    if ("getReader" in source) return streamPieces(source, signal);
    if (Symbol.asyncIterator in source) return signal ? abortable(source, signal) : source;
    if (Symbol.iterator in source) return source;
  }
  throw new InputError("source", typeof source, "text, bytes, or pieces of them");
}

/** A piece as bytes. */
function bytesOf(piece: Uint8Array | string, encoder: TextEncoder): Uint8Array {
  if (typeof piece === "string") return encoder.encode(piece);
  // Not `instanceof`: bytes of another frame or context are bytes.
  if (ArrayBuffer.isView(piece) && piece.BYTES_PER_ELEMENT === 1) return piece;
  throw new InputError("source", `pieces of ${typeof piece}`, "pieces of bytes or text");
}

/** The pieces as plain bytes: through gunzip if the first two bytes are gzip's. */
async function* unpacked(pieces: AsyncIterable<Uint8Array>): AsyncGenerator<Uint8Array> {
  const iterator = pieces[Symbol.asyncIterator]();
  const rest = { [Symbol.asyncIterator]: () => iterator };
  let head: Uint8Array = new Uint8Array(0);
  while (head.length < 2) {
    const { done, value } = await iterator.next();
    if (done) break;
    const joined = new Uint8Array(head.length + value.length);
    joined.set(head);
    joined.set(value, head.length);
    head = joined;
  }
  async function* whole(): AsyncGenerator<Uint8Array> {
    yield head;
    yield* rest;
  }
  yield* isGzip(head) ? gunzip(whole()) : whole();
}

/**
 * Reads a whole trace: Chrome's or Kineto's JSON, as an object with `traceEvents` or as a bare
 * array, plain or gzip.
 * @throws TraceError (code "input") with the byte and the event where it cannot go on; InputError
 * for a source or option that cannot be one
 */
export async function readTrace(
  source: TraceSource,
  options: ReadTraceOptions = {},
): Promise<EventTable> {
  const { onProgress, signal, ...readerOptions } = options;
  const reader = new TraceReader(readerOptions);
  const encoder = new TextEncoder();
  signal?.throwIfAborted();
  async function* counted(): AsyncGenerator<Uint8Array> {
    let bytes = 0;
    let reported = 0;
    for await (const given of piecesOf(source, signal)) {
      signal?.throwIfAborted();
      const piece = bytesOf(given, encoder);
      yield piece;
      bytes += piece.length;
      if (bytes - reported < PIECE_BYTES) continue;
      onProgress?.(bytes);
      reported = bytes;
    }
    if (bytes !== reported) onProgress?.(bytes);
  }
  try {
    for await (const piece of unpacked(counted())) {
      reader.push(piece);
      if (reader.stopped) break;
    }
  } catch (error) {
    if (!(error instanceof GzipProblem)) throw error;
    const where = `after byte ${error.byteOffset} of the gzip file`;
    reader.interrupt("compression", `${error.message}, ${where}`, error);
  }
  signal?.throwIfAborted();
  return reader.finish();
}
