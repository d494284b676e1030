// A small part of Markdown, parsed into data: fenced code, headings, lists, paragraphs; inline
// code, strong, emphasis. Never produces HTML, knows no links and no images, because a model's text
// is untrusted. Unfinished constructs are normal while text streams in and read as far as they go.

export type Inline = {
  readonly kind: "text" | "code" | "strong" | "emphasis";
  readonly text: string;
};

export type Block =
  | { readonly kind: "code"; readonly source: string; readonly lang: string; readonly text: string }
  | { readonly kind: "heading"; readonly source: string; readonly level: number }
  | { readonly kind: "list"; readonly source: string; readonly items: readonly ListItem[] }
  | { readonly kind: "paragraph"; readonly source: string };

export interface ListItem {
  /** "•", or the number as written. */
  readonly marker: string;
  readonly text: string;
  /** Levels of indentation. */
  readonly depth: number;
}

const FENCE = /^ {0,3}(`{3,}|~{3,})\s*([^\s`]*)/;
const HEADING = /^(#{1,6})\s+\S/;
const ITEM = /^(\s*)(?:([-*+])|(\d{1,9}[.)]))\s+(.*)$/;

/**
 * Cuts text into blocks; a block's `source` tells whether it changed. Text that is only appended
 * changes the last block alone.
 */
export function parseBlocks(text: string): Block[] {
  const lines = text.split("\n");
  const blocks: Block[] = [];
  let at = 0;
  while (at < lines.length) {
    const line = lines[at] ?? "";
    if (line.trim() === "") {
      at++;
      continue;
    }
    const end = blockEnd(lines, at);
    blocks.push(blockOf(lines.slice(at, end)));
    at = end;
  }
  return blocks;
}

function blockEnd(lines: readonly string[], start: number): number {
  const first = lines[start] ?? "";
  const fence = FENCE.exec(first)?.[1];
  let at = start + 1;
  if (fence !== undefined) {
    while (at < lines.length && !closesFence(lines[at] ?? "", fence)) at++;
    return Math.min(at + 1, lines.length);
  }
  if (HEADING.test(first)) return at;
  const inList = ITEM.test(first);
  for (; at < lines.length; at++) {
    const line = lines[at] ?? "";
    if (line.trim() === "" || FENCE.test(line) || HEADING.test(line)) return at;
    if (!inList && ITEM.test(line)) return at;
  }
  return at;
}

function closesFence(line: string, fence: string): boolean {
  const trimmed = line.trim();
  return trimmed.startsWith(fence) && trimmed === (fence[0] ?? "").repeat(trimmed.length);
}

function blockOf(lines: readonly string[]): Block {
  const source = lines.join("\n");
  const first = lines[0] ?? "";
  const fence = FENCE.exec(first);
  if (fence !== null) {
    const closed = lines.length > 1 && closesFence(lines.at(-1) ?? "", fence[1] ?? "");
    const body = lines.slice(1, closed ? -1 : undefined).join("\n");
    return { kind: "code", source, lang: fence[2] ?? "", text: body };
  }
  const heading = HEADING.exec(first);
  if (heading !== null) return { kind: "heading", source, level: heading[1]?.length ?? 1 };
  if (ITEM.test(first)) return { kind: "list", source, items: itemsOf(lines) };
  return { kind: "paragraph", source };
}

function itemsOf(lines: readonly string[]): ListItem[] {
  const items: ListItem[] = [];
  for (const line of lines) {
    const match = ITEM.exec(line);
    const last = items.at(-1);
    if (match !== null) {
      const depth = Math.min(Math.floor((match[1] ?? "").length / 2), 6);
      items.push({ marker: match[3] ?? "•", text: match[4] ?? "", depth });
    } else if (last !== undefined) {
      items[items.length - 1] = { ...last, text: `${last.text}\n${line.trim()}` };
    }
  }
  return items;
}

/** The text of a heading without its signs. */
export function headingText(source: string): string {
  return source.replace(/^#+\s+/, "").replace(/\s+#+\s*$/, "");
}

const DELIMITERS = [
  { mark: "**", kind: "strong" },
  { mark: "*", kind: "emphasis" },
] as const;

/** Cuts a line or paragraph into plain and marked text; a mark without its partner is text. */
export function parseInline(text: string): Inline[] {
  const parts: Inline[] = [];
  /** Marks known to have no partner further on, so that each is searched for once. */
  const lonely = new Set<string>();
  let plainFrom = 0;
  let at = 0;
  while (at < text.length) {
    const found = markedAt(text, at, lonely);
    if (found === undefined) {
      at += text[at] === "`" ? runLength(text, at) : 1;
      continue;
    }
    if (at > plainFrom) parts.push({ kind: "text", text: text.slice(plainFrom, at) });
    parts.push(found.part);
    at = plainFrom = found.end;
  }
  if (plainFrom < text.length) parts.push({ kind: "text", text: text.slice(plainFrom) });
  return parts;
}

interface Marked {
  readonly part: Inline;
  readonly end: number;
}

function markedAt(text: string, at: number, lonely: Set<string>): Marked | undefined {
  if (text[at] === "`") return codeAt(text, at, lonely);
  if (text[at] !== "*") return undefined;
  for (const { mark, kind } of DELIMITERS) {
    if (!text.startsWith(mark, at) || lonely.has(mark)) continue;
    const from = at + mark.length;
    // "2 * 3" is no emphasis: the mark must touch the text on its inner side.
    if (/[\s*]/.test(text[from] ?? " ")) continue;
    const to = text.indexOf(mark, from + 1);
    if (to === -1) lonely.add(mark);
    else if (!/\s/.test(text[to - 1] ?? " ")) {
      return { part: { kind, text: text.slice(from, to) }, end: to + mark.length };
    }
  }
  return undefined;
}

function runLength(text: string, at: number): number {
  let end = at;
  while (text[end] === "`") end++;
  return end - at;
}

function codeAt(text: string, at: number, lonely: Set<string>): Marked | undefined {
  const length = runLength(text, at);
  const mark = "`".repeat(length);
  if (lonely.has(mark)) return undefined;
  let to = at + length;
  for (;;) {
    to = text.indexOf(mark, to);
    if (to === -1) {
      lonely.add(mark);
      return undefined;
    }
    const closing = runLength(text, to);
    if (closing === length) {
      const part = { kind: "code", text: text.slice(at + length, to) } as const;
      return { part, end: to + length };
    }
    to += closing;
  }
}

/** A reasoning model's answer in its two parts. */
export interface Reply {
  /** What stands inside `<think>…</think>`; null when there is none. */
  readonly reasoning: string | null;
  readonly answer: string;
  /** The reasoning has ended. */
  readonly decided: boolean;
}

/** Splits off the reasoning; R1's chat template may have put the opening mark into the prompt. */
export function splitReasoning(text: string): Reply {
  const open = /^\s*<think>/.exec(text)?.[0].length ?? 0;
  const close = text.indexOf("</think>");
  if (close !== -1) {
    const answer = text.slice(close + "</think>".length).trimStart();
    return { reasoning: text.slice(open, close).trim(), answer, decided: true };
  }
  if (open > 0) return { reasoning: text.slice(open).trim(), answer: "", decided: false };
  return { reasoning: null, answer: text, decided: true };
}
