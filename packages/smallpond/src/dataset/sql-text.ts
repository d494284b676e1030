// SQL text for data sets: how DuckDB is told to read one, and the quoting that everything needs.

import { PlanError } from "../errors.ts";
import type { DataSet, ParquetData, Schema } from "./dataset.ts";

/** A string literal. */
export function literal(text: string): string {
  return `'${text.replaceAll("'", "''")}'`;
}

/** An identifier. */
export function identifier(name: string): string {
  return `"${name.replaceAll('"', '""')}"`;
}

const listOf = (paths: readonly string[]): string => `[${paths.map(literal).join(", ")}]`;

const structOf = (schema: Schema): string =>
  `{${Object.entries(schema)
    .map(([name, type]) => `${literal(name)}: ${literal(type)}`)
    .join(", ")}}`;

/**
 * An expression for FROM that gives the rows of a data set. In brackets, as two inputs of a query
 * that call one function would have one name, and no column of either could be named.
 */
export function fromClause(data: DataSet): string {
  const scan = data.parts.length === 0 ? noRows(data) : scanOf(data);
  const clause = scan.startsWith("(") ? scan : `(SELECT * FROM ${scan})`;
  return (data.selects ?? []).reduce(
    // On lines of its own, so that a comment at its end takes nothing along.
    (inner, list) => `(SELECT ${list.join(", ")}\nFROM ${inner})`,
    clause,
  );
}

/** `, filename=true`. @throws PlanError for what only Parquet has */
function generatedOptions(data: DataSet): string {
  return (data.generated ?? [])
    .map((name) => {
      const known = data.format === "parquet" || name === "filename";
      if (known && data.format !== "files" && data.format !== "table") return `, ${name}=true`;
      throw new PlanError(`reading ${data.format} makes no column ${name}`);
    })
    .join("");
}

function scanOf(data: DataSet): string {
  switch (data.format) {
    case "parquet":
      return parquetClause(data);
    case "csv": {
      const paths = listOf(data.parts.map((part) => part.path));
      const delimiter = literal(data.delimiter);
      const options = `delim=${delimiter}, header=${data.header}, auto_detect=false`;
      const text = namedOptions(textNames, data.text) + generatedOptions(data);
      return `read_csv(${paths}, columns=${structOf(data.schema)}, ${options}${text})`;
    }
    case "json": {
      const paths = listOf(data.parts.map((part) => part.path));
      // Not DuckDB's 16 MiB: rows with documents in them are common.
      const json = { format: "newline_delimited", maxObjectBytes: 2 ** 26, ...data.json };
      const options = namedOptions(jsonNames, json) + generatedOptions(data);
      return `read_json(${paths}, columns=${structOf(data.schema)}${options})`;
    }
    case "table": {
      generatedOptions(data);
      const scans = data.parts.map(({ path }) => `${data.reader}(${literal(path)})`);
      if (scans.length === 1) return scans[0] as string;
      return `(${scans.map((scan) => `SELECT * FROM ${scan}`).join(" UNION ALL ")})`;
    }
    case "files":
      return `(SELECT unnest(${listOf(data.parts.map((part) => part.path))}) AS path)`;
  }
}

/** Columns are known for text; Parquet without a file cannot occur (`withParts`). */
function noRows(data: DataSet): string {
  const schema =
    data.format === "csv" || data.format === "json" ? data.schema : { path: "VARCHAR" };
  const made = (data.generated ?? []).map((name): [string, string] => [
    name,
    name === "filename" ? "VARCHAR" : "BIGINT",
  ]);
  const columns = [...Object.entries(schema), ...made].map(
    ([name, type]) => `CAST(NULL AS ${type}) AS ${identifier(name)}`,
  );
  return `(SELECT ${columns.join(", ")} WHERE false)`;
}

function parquetClause(data: ParquetData): string {
  const { parts, columns, unionByName: byName = false, hivePartitioning: hive } = data;
  const { generated = [] } = data;
  const names = columns && [...new Set([...columns, ...generated])].map(identifier).join(", ");
  const file = generated.includes("filename") ? ", filename=true" : "";
  const whole = parts.filter((part) => part.rows === undefined);
  const ranges = parts.filter((part) => part.rows !== undefined);
  const paths = hive === undefined ? "" : `, hive_partitioning=${hive}`;
  const options = byName ? `${paths}, union_by_name=true` : paths;
  const selects: string[] = [];
  if (whole.length > 0) {
    const made = generatedOptions(data);
    const read = `read_parquet(${listOf(whole.map((part) => part.path))}${options}${made})`;
    if (ranges.length === 0 && names === undefined) return read;
    selects.push(`SELECT ${names ?? "*"} FROM ${read}`);
  }
  for (const { path, rows } of ranges) {
    const [start, end] = rows as readonly [number, number];
    const read = `read_parquet(${literal(path)}, file_row_number=true${file}${paths})`;
    const window = `file_row_number >= ${start} AND file_row_number < ${end}`;
    const all = generated.includes("file_row_number") ? "*" : "* EXCLUDE (file_row_number)";
    selects.push(`SELECT ${names ?? all} FROM ${read} WHERE ${window}`);
  }
  return `(${selects.join(byName ? " UNION ALL BY NAME " : " UNION ALL ")})`;
}

const textNames: Readonly<Record<string, string>> = {
  quote: "quote",
  escape: "escape",
  nullText: "nullstr",
  skipRows: "skip",
  dateFormat: "dateformat",
  timestampFormat: "timestampformat",
  maxLineBytes: "max_line_size",
  ignoreErrors: "ignore_errors",
  compression: "compression",
};

const jsonNames: Readonly<Record<string, string>> = {
  format: "format",
  maxObjectBytes: "maximum_object_size",
  ignoreErrors: "ignore_errors",
  compression: "compression",
};

/** `, skip=1, quote='"'`: options under DuckDB's names. */
function namedOptions(names: Readonly<Record<string, string>>, options: object = {}): string {
  return Object.entries(options)
    .filter(([, value]) => value !== undefined)
    .map(([name, value]) => {
      const text = typeof value === "string" ? literal(value) : String(value);
      return `, ${names[name] ?? name}=${text}`;
    })
    .join("");
}
