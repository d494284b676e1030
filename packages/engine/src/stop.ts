// Stop strings over text that arrives in pieces. Text that could be the beginning of a stop string
// is held back until it is certain. The outcome does not depend on how the text was cut: the stop
// string that is complete first wins, the longest of those that end together.

export interface StopResult {
  /** Text that can be shown. */
  readonly text: string;
  /** The stop string found; nothing more may be pushed after it. */
  readonly stop: string | null;
}

export class StopMatcher {
  readonly #stops: readonly string[];
  readonly #longest: number;
  #held = "";

  constructor(stops: readonly string[]) {
    this.#stops = stops;
    this.#longest = stops.reduce((n, s) => Math.max(n, s.length), 0);
  }

  /** Adds text; returns what is certain now, cut before a stop string if one is complete. */
  push(piece: string): StopResult {
    if (this.#stops.length === 0) return { text: piece, stop: null };
    // Any match must begin in what was held: an earlier beginning would have held more.
    const text = this.#held + piece;
    let end = Number.POSITIVE_INFINITY;
    let start = 0;
    let found: string | null = null;
    for (const stop of this.#stops) {
      const at = text.indexOf(stop);
      if (at < 0) continue;
      const stopEnd = at + stop.length;
      if (stopEnd < end || (stopEnd === end && at < start)) {
        end = stopEnd;
        start = at;
        found = stop;
      }
    }
    if (found !== null) {
      this.#held = "";
      return { text: text.slice(0, start), stop: found };
    }
    const keep = this.#heldLength(text);
    this.#held = text.slice(text.length - keep);
    return { text: text.slice(0, text.length - keep), stop: null };
  }

  /** What was held back, when the text ends for another reason. */
  flush(): string {
    const text = this.#held;
    this.#held = "";
    return text;
  }

  /** Length of the longest end of `text` that begins a stop string without completing it. */
  #heldLength(text: string): number {
    for (let n = Math.min(this.#longest - 1, text.length); n > 0; n--) {
      const tail = text.slice(text.length - n);
      if (this.#stops.some((stop) => stop.length > n && stop.startsWith(tail))) return n;
    }
    return 0;
  }
}
