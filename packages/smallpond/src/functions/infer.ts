// DuckDB types for what functions return. Without a schema given, the type of a column is that of
// its values; whole numbers are BIGINT until one has a fraction.

import { InputError } from "@open-infra/errors";
import type { Schema } from "../dataset/dataset.ts";

/** Widens as values come. */
export class SchemaGuess {
  readonly #types = new Map<string, string | undefined>();

  /** Takes a row into account. @throws InputError for values that do not go together */
  add(row: Readonly<Record<string, unknown>>): void {
    for (const name in row) {
      const before = this.#types.get(name);
      this.#types.set(name, widen(before, typeOf(row[name], name), name));
    }
  }

  get empty(): boolean {
    return this.#types.size === 0;
  }

  /** A column of which only NULL was seen is VARCHAR. */
  schema(): Schema {
    return Object.fromEntries([...this.#types].map(([name, type]) => [name, type ?? "VARCHAR"]));
  }
}

/** The DuckDB type of a value; undefined for none. */
export function typeOf(value: unknown, name: string): string | undefined {
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
      return objectType(value, name);
  }
}

function objectType(value: unknown, name: string): string | undefined {
  if (value === null) return undefined;
  if (value instanceof Date) return "TIMESTAMP";
  if (value instanceof Uint8Array) return "BLOB";
  if (Array.isArray(value)) {
    const items = value.reduce<string | undefined>(
      (type, item) => widen(type, typeOf(item, `${name}[]`), `${name}[]`),
      undefined,
    );
    return `${items ?? "VARCHAR"}[]`;
  }
  if (typeof value === "object") {
    const fields = Object.entries(value).map(([key, item]) => {
      return `"${key.replaceAll('"', '""')}" ${typeOf(item, `${name}.${key}`) ?? "VARCHAR"}`;
    });
    if (fields.length > 0) return `STRUCT(${fields.join(", ")})`;
  }
  throw new InputError(`column ${name}`, String(value), "a value that DuckDB has a type for");
}

const numeric = ["BIGINT", "HUGEINT", "DOUBLE"];

function widen(a: string | undefined, b: string | undefined, name: string): string | undefined {
  if (a === undefined || a === b) return b ?? a;
  if (b === undefined) return a;
  if (numeric.includes(a) && numeric.includes(b)) {
    return numeric[Math.max(numeric.indexOf(a), numeric.indexOf(b))];
  }
  throw new InputError(
    `column ${name}`,
    `${a} in one row and ${b} in another`,
    "values of one type; give a schema to cast them",
  );
}
