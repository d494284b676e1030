// Values made to fit a nested DuckDB type before the client converts them: an object's missing
// fields are NULL, typed arrays are lists, whole numbers are whole.

import { DuckDBListType, DuckDBMapType, DuckDBStructType, type DuckDBType } from "@duckdb/node-api";
import { InputError } from "@open-infra/errors";

/** Fits one value. */
export type Fit = (value: unknown) => unknown;

/** How values of a type are made to fit; undefined for one that needs nothing. */
export function fitOf(type: DuckDBType): Fit | undefined {
  if (type instanceof DuckDBListType) {
    const item = orNull(fitOf(type.valueType));
    return (value) => Array.from(value as Iterable<unknown>, item);
  }
  if (type instanceof DuckDBStructType) {
    const fields = type.entryNames.map(
      (name, i) => [name, orNull(fitOf(type.entryTypes[i] as DuckDBType))] as const,
    );
    return (value) => {
      const row = value as Readonly<Record<string, unknown>>;
      return Object.fromEntries(fields.map(([name, fit]) => [name, fit(row[name])]));
    };
  }
  if (type instanceof DuckDBMapType) {
    const [keyFit, valueFit] = [orNull(fitOf(type.keyType)), orNull(fitOf(type.valueType))];
    // A Map, what the client reads a MAP as, or a plain object.
    return (value) =>
      entriesOf(value).map(([key, item]) => ({ key: keyFit(key), value: valueFit(item) }));
  }
  return numberFit(type);
}

/** BIGINTs come as bigint, and often go where a number is due. */
function numberFit(type: DuckDBType): Fit | undefined {
  const name = String(type);
  if (/^(FLOAT|DOUBLE)$/.test(name)) return (value) => Number(value as number);
  if (!/^U?(TINY|SMALL|BIG|HUGE)?INT(EGER)?$/.test(name)) return undefined;
  const wide = /BIG|HUGE/.test(name);
  return (value) => {
    if (typeof value === "number" && !Number.isInteger(value)) {
      throw new InputError("a value", `${value}`, `a whole number, for ${name}`);
    }
    return !wide && typeof value === "bigint" ? Number(value) : value;
  };
}

function orNull(fit: Fit | undefined): Fit {
  return (value) => {
    if (value === undefined || value === null) return null;
    return fit === undefined ? value : fit(value);
  };
}

function entriesOf(value: unknown): (readonly [unknown, unknown])[] {
  if (value instanceof Map) return [...value];
  if (Array.isArray(value)) return value.map(({ key, value: item }) => [key, item] as const);
  return Object.entries(value as object);
}
