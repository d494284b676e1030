// DuckDB types for what functions return. Without a schema given, the type of a column is that of
// its values; whole numbers are BIGINT until one has a fraction. Lists and objects are known as far
// as their values show: an empty list takes its type from other rows' lists.

import { InputError } from "@open-infra/errors";
import type { Schema } from "../dataset/dataset.ts";
import { identifier } from "../dataset/sql-text.ts";

/** What is known of a type; undefined where only NULL was seen. */
type Guess =
  | string
  | { readonly items: Guess | undefined }
  | { readonly fields: ReadonlyMap<string, Guess | undefined> }
  | undefined;

/** Widens as values come. */
export class SchemaGuess {
  readonly #types = new Map<string, Guess>();

  /** Takes a row into account. @throws InputError for values that do not go together */
  add(row: Readonly<Record<string, unknown>>): void {
    for (const name in row) {
      const before = this.#types.get(name);
      this.#types.set(name, widen(before, guess(row[name], name), name));
    }
  }

  get empty(): boolean {
    return this.#types.size === 0;
  }

  /** A column of which only NULL was seen is VARCHAR. */
  schema(): Schema {
    return Object.fromEntries([...this.#types].map(([name, type]) => [name, textOf(type)]));
  }
}

function textOf(type: Guess): string {
  if (type === undefined) return "VARCHAR";
  if (typeof type === "string") return type;
  if ("items" in type) return `${textOf(type.items)}[]`;
  const fields = [...type.fields].map(([key, field]) => `${identifier(key)} ${textOf(field)}`);
  return `STRUCT(${fields.join(", ")})`;
}

function guess(value: unknown, name: string): Guess {
  switch (typeof value) {
    case "undefined":
      return undefined;
    case "boolean":
      return "BOOLEAN";
    case "number":
      return Number.isSafeInteger(value) ? "BIGINT" : "DOUBLE";
    case "bigint":
      return value >= -(2n ** 63n) && value < 2n ** 63n ? "BIGINT" : "HUGEINT";
    case "string":
      return "VARCHAR";
    default:
      return objectGuess(value, name);
  }
}

function objectGuess(value: unknown, name: string): Guess {
  if (value === null) return undefined;
  if (value instanceof Date) return "TIMESTAMP";
  if (value instanceof Uint8Array) return "BLOB";
  if (Array.isArray(value) || ArrayBuffer.isView(value)) {
    let items: Guess;
    for (const item of value as Iterable<unknown>) {
      items = widen(items, guess(item, `${name}[]`), `${name}[]`);
    }
    return { items };
  }
  if (typeof value === "object") {
    const entries = Object.entries(value);
    if (entries.length > 0) {
      const fields = entries.map(([key, item]) => [key, guess(item, `${name}.${key}`)] as const);
      return { fields: new Map(fields) };
    }
  }
  throw new InputError(`column ${name}`, String(value), "a value that DuckDB has a type for");
}

const numeric = ["BIGINT", "HUGEINT", "DOUBLE"];

function widen(a: Guess, b: Guess, name: string): Guess {
  if (a === undefined || a === b) return b ?? a;
  if (b === undefined) return a;
  if (typeof a === "string" && typeof b === "string") {
    if (numeric.includes(a) && numeric.includes(b)) {
      return numeric[Math.max(numeric.indexOf(a), numeric.indexOf(b))];
    }
  } else if (typeof a === "object" && typeof b === "object") {
    if ("items" in a && "items" in b) return { items: widen(a.items, b.items, `${name}[]`) };
    if ("fields" in a && "fields" in b) {
      const fields = new Map(a.fields);
      for (const [key, field] of b.fields) {
        fields.set(key, widen(fields.get(key), field, `${name}.${key}`));
      }
      return { fields };
    }
  }
  throw new InputError(
    `column ${name}`,
    `${textOf(a)} in one row and ${textOf(b)} in another`,
    "values of one type; give a schema to cast them",
  );
}
