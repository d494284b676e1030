// Server-sent events out of a byte stream, as the HTML standard defines them. Used instead of
// EventSource, which can neither POST nor send an Authorization header. Knows nothing about what
// the events mean.

/** One dispatched event. */
export interface SseEvent {
  /** The `event:` field. @default "message" */
  readonly event: string;
  /** The `data:` lines, joined by newlines. */
  readonly data: string;
  /** The last `id:` seen so far, or "". */
  readonly id: string;
}

/** The stream does not hold to the limits of an event stream. */
export class SseError extends Error {
  override readonly name: string = "SseError";
}

/** Characters one event may have before the stream is taken for something else. */
const DEFAULT_EVENT_CHARS = 4 * 1024 * 1024;

/**
 * Incremental parser: push text as it arrives, in pieces of any size, and get the events that
 * became complete. Lines end in LF, CR or CR LF, also where a piece ends between the two.
 */
export class SseParser {
  readonly #eventCharsMax: number;
  /** The unfinished line. */
  #line = "";
  #data: string[] = [];
  #dataChars = 0;
  #event = "";
  #id = "";
  #skipLineFeed = false;
  #atStart = true;

  constructor(options: { readonly eventCharsMax?: number } = {}) {
    this.#eventCharsMax = options.eventCharsMax ?? DEFAULT_EVENT_CHARS;
  }

  /**
   * @throws SseError when an event grows past `eventCharsMax`, because a client that buffers
   * without end is the server's to crash.
   */
  push(text: string): SseEvent[] {
    const events: SseEvent[] = [];
    let from = 0;
    if (this.#atStart && text.length > 0) {
      this.#atStart = false;
      if (text.charCodeAt(0) === 0xfeff) from = 1;
    }
    for (let at = from; at < text.length; at++) {
      const code = text.charCodeAt(at);
      if (code !== 10 && code !== 13) {
        this.#skipLineFeed = false;
        continue;
      }
      const secondOfPair = code === 10 && this.#skipLineFeed;
      this.#skipLineFeed = code === 13;
      if (!secondOfPair) {
        const event = this.#endLine(this.#line + text.slice(from, at));
        this.#line = "";
        if (event !== undefined) events.push(event);
      }
      from = at + 1;
    }
    this.#line += text.slice(from);
    this.#checkSize(this.#line.length);
    return events;
  }

  #checkSize(more: number): void {
    if (this.#dataChars + more <= this.#eventCharsMax) return;
    throw new SseError(
      `an event of more than ${this.#eventCharsMax} characters came; this is not an event stream`,
    );
  }

  #endLine(line: string): SseEvent | undefined {
    if (line === "") return this.#dispatch();
    const colon = line.indexOf(":");
    if (colon === 0) return undefined; // a comment, which servers send to keep the line open
    const field = colon === -1 ? line : line.slice(0, colon);
    let value = colon === -1 ? "" : line.slice(colon + 1);
    if (value.startsWith(" ")) value = value.slice(1);
    if (field === "data") {
      this.#checkSize(value.length);
      this.#data.push(value);
      this.#dataChars += value.length + 1;
    } else if (field === "event") this.#event = value;
    else if (field === "id" && !value.includes("\0")) this.#id = value;
    return undefined;
  }

  #dispatch(): SseEvent | undefined {
    const data = this.#data;
    const event = this.#event || "message";
    this.#data = [];
    this.#dataChars = 0;
    this.#event = "";
    if (data.length === 0) return undefined;
    return { event, data: data.join("\n"), id: this.#id };
  }
}

/**
 * The events of a response body. An event that the end of the stream cuts off is dropped, as the
 * standard asks. Leaving the loop cancels the body, which closes the connection.
 *
 * @throws SseError on an oversized event; whatever the stream itself fails with otherwise.
 */
export async function* sseEvents(
  body: ReadableStream<Uint8Array>,
): AsyncGenerator<SseEvent, void, void> {
  const reader = body.getReader();
  const decoder = new TextDecoder("utf-8", { ignoreBOM: true });
  const parser = new SseParser();
  try {
    for (;;) {
      const { done, value } = await reader.read();
      if (done) return;
      yield* parser.push(decoder.decode(value, { stream: true }));
    }
  } finally {
    // Already failed or closed is as good as cancelled.
    await reader.cancel().catch(() => undefined);
  }
}
