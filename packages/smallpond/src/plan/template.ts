// SQL with placeholders: {0}, {1} for inputs, a few names for what a task knows of itself. Any
// other brace is a brace, so that DuckDB's struct literals need no doubling (the original's do).

import { PlanError } from "../errors.ts";

/** Names a task can fill in; besides, one per partition dimension. */
export const taskNames = [
  "batch_index",
  "query_index",
  "cpu_limit",
  "memory_limit",
  "rand_seed",
  "output_filename",
] as const;

/** A piece of text, an input's number, or a name. */
export type TemplatePiece = string | { readonly input: number } | { readonly name: string };

const placeholder = /\{(\d+|[A-Za-z_]\w*)\}/g;
/** Quoted names; strings and comments, which may hold quotes that open nothing. */
const quoted = /"(?:[^"]|"")*"|'(?:[^']|'')*'|--[^\n]*/g;

/**
 * Takes a text apart. `{` and `}` that do not enclose a number or a known name stay as they are. In
 * strings placeholders count, as in the original; in quoted names they do not, so that a column may
 * have any. A semicolon at the end is left out: queries are put into others.
 */
export function parseTemplate(given: string, dimensions: readonly string[] = []): TemplatePiece[] {
  const text = given.replace(/[;\s]+$/, "");
  const known = new Set<string>([...taskNames, ...dimensions]);
  const names = [...text.matchAll(quoted)].filter(([token]) => token.startsWith('"'));
  const isName = (at: number): boolean =>
    names.some(({ index, 0: token }) => index < at && at < index + token.length);
  const pieces: TemplatePiece[] = [];
  let from = 0;
  for (const match of text.matchAll(placeholder)) {
    const inner = match[1] as string;
    const isInput = /^\d+$/.test(inner);
    if ((!isInput && !known.has(inner)) || isName(match.index)) continue;
    if (match.index > from) pieces.push(text.slice(from, match.index));
    pieces.push(isInput ? { input: Number(inner) } : { name: inner });
    from = match.index + match[0].length;
  }
  if (from < text.length) pieces.push(text.slice(from));
  return pieces;
}

/** Fills a template in. @throws PlanError if it names an input that there is not. */
export function fillTemplate(
  pieces: readonly TemplatePiece[],
  inputs: readonly string[],
  names: Readonly<Record<string, string | number>>,
): string {
  return pieces
    .map((piece) => {
      if (typeof piece === "string") return piece;
      if ("name" in piece) return String(names[piece.name] ?? `{${piece.name}}`);
      const text = inputs[piece.input];
      if (text !== undefined) return text;
      const has = inputs.length === 1 ? "1 input" : `${inputs.length} inputs`;
      throw new PlanError(`the query asks for input {${piece.input}}, but it has ${has}`);
    })
    .join("");
}

/** A template as the text it was made of. */
export function templateText(pieces: readonly TemplatePiece[]): string {
  return pieces
    .map((piece) => {
      if (typeof piece === "string") return piece;
      return "input" in piece ? `{${piece.input}}` : `{${piece.name}}`;
    })
    .join("");
}
