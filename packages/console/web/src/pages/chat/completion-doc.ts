// The text of Completion mode: one document that the user and the model write in turns. The part
// the model wrote last is remembered, so that it can be marked, taken back and written anew.

import { effect, type ReadonlySignal, type Signal, signal } from "@preact/signals";
import type { Generation } from "./generation.ts";

/** A half-open range of characters. */
export interface TextRange {
  readonly from: number;
  readonly to: number;
}

/** Starts a request that continues `prompt`. */
export type Continue = (prompt: string) => Generation;

/** State of Completion mode; survives a visit to another page. */
export class CompletionDoc {
  readonly #text: Signal<string>;
  readonly #generated: Signal<TextRange | null> = signal(null);
  readonly #generation: Signal<Generation | null> = signal(null);

  constructor(text: string) {
    this.#text = signal(text);
  }

  get text(): ReadonlySignal<string> {
    return this.#text;
  }

  /** What the model wrote last, as far as it still stands there unedited. */
  get generated(): ReadonlySignal<TextRange | null> {
    return this.#generated;
  }

  /** The last request; null before the first and after `clear`. */
  get generation(): ReadonlySignal<Generation | null> {
    return this.#generation;
  }

  /** Takes over what the user typed. */
  edit(text: string): void {
    const range = this.#generated.value;
    if (range !== null) this.#generated.value = rangeAfterEdit(this.#text.value, text, range);
    this.#text.value = text;
  }

  /** Lets the model go on from the end of the document. */
  generate(start: Continue): void {
    const prompt = this.#text.value;
    const generation = start(prompt);
    this.#generation.value = generation;
    const unfollow = effect(() => {
      const text = generation.text.value;
      this.#text.value = prompt + text;
      this.#generated.value = { from: prompt.length, to: prompt.length + text.length };
    });
    void generation.ended.then(unfollow);
  }

  /** Throws away what the model wrote last and asks again. */
  regenerate(start: Continue): void {
    this.takeBack();
    this.generate(start);
  }

  /** Removes what the model wrote last. */
  takeBack(): void {
    const range = this.#generated.value;
    if (range === null) return;
    const text = this.#text.value;
    this.#text.value = text.slice(0, range.from) + text.slice(range.to);
    this.#generated.value = null;
  }

  clear(): void {
    this.#generation.value?.stop();
    this.#generation.value = null;
    this.#generated.value = null;
    this.#text.value = "";
  }
}

/**
 * Where a range lies after an edit, found from the common start and end of both texts. An edit
 * inside the range makes its text the user's from there on; null when nothing of it is left.
 */
export function rangeAfterEdit(before: string, after: string, range: TextRange): TextRange | null {
  const shorter = Math.min(before.length, after.length);
  let start = 0;
  while (start < shorter && before[start] === after[start]) start++;
  let end = 0;
  while (end < shorter - start && before.at(-1 - end) === after.at(-1 - end)) end++;
  const editEnd = before.length - end;
  const shift = after.length - before.length;
  if (start >= range.to) return range;
  if (editEnd <= range.from) return { from: range.from + shift, to: range.to + shift };
  return start > range.from ? { from: range.from, to: start } : null;
}

/** A run of whole lines of the document, for drawing. */
export interface DocBlock {
  /** Offset of the block in the document. */
  readonly at: number;
  readonly before: string;
  readonly generated: string;
  readonly after: string;
}

/** Characters after which a block ends at the next line break. */
const BLOCK_CHARS = 1500;

/**
 * Cuts the document into blocks of whole lines. While text is only appended, all blocks but the
 * last stay the same, so the browser lays out a few lines a frame however long the text is. The
 * line break between two blocks belongs to neither.
 */
export function docBlocks(text: string, range: TextRange | null): DocBlock[] {
  const from = range?.from ?? text.length;
  const to = range?.to ?? text.length;
  const blocks: DocBlock[] = [];
  let at = 0;
  while (at <= text.length) {
    const lineBreak = text.indexOf("\n", at + BLOCK_CHARS);
    const end = lineBreak === -1 ? text.length : lineBreak;
    const cut = (position: number): number => Math.min(Math.max(position, at), end);
    blocks.push({
      at,
      before: text.slice(at, cut(from)),
      generated: text.slice(cut(from), cut(to)),
      after: text.slice(cut(to), end),
    });
    at = end + 1;
  }
  return blocks;
}
