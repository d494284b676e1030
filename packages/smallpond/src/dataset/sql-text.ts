// SQL text for data sets: how DuckDB is told to read one, and the quoting that everything needs.

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

/** An expression for FROM that gives the rows of a data set. */
export function fromClause(data: DataSet): string {
  if (data.parts.length === 0) return noRows(data);
  switch (data.format) {
    case "parquet":
      return parquetClause(data);
    case "csv": {
      const paths = listOf(data.parts.map((part) => part.path));
      const delimiter = literal(data.delimiter);
      const options = `delim=${delimiter}, header=${data.header}, auto_detect=false`;
      return `read_csv(${paths}, columns=${structOf(data.schema)}, ${options})`;
    }
    case "json": {
      const paths = listOf(data.parts.map((part) => part.path));
      return `read_json(${paths}, columns=${structOf(data.schema)}, format='newline_delimited')`;
    }
    case "files":
      return `(SELECT unnest(${listOf(data.parts.map((part) => part.path))}) AS path)`;
  }
}

/** Columns are known for text; Parquet without a file cannot occur (`withParts`). */
function noRows(data: DataSet): string {
  const schema =
    data.format === "csv" || data.format === "json" ? data.schema : { path: "VARCHAR" };
  const columns = Object.entries(schema).map(
    ([name, type]) => `CAST(NULL AS ${type}) AS ${identifier(name)}`,
  );
  return `(SELECT ${columns.join(", ")} WHERE false)`;
}

function parquetClause(data: ParquetData): string {
  const { parts, columns, unionByName: byName = false, hivePartitioning: hive } = data;
  const names = columns?.map(identifier).join(", ");
  const whole = parts.filter((part) => part.rows === undefined);
  const ranges = parts.filter((part) => part.rows !== undefined);
  const paths = hive === undefined ? "" : `, hive_partitioning=${hive}`;
  const options = byName ? `${paths}, union_by_name=true` : paths;
  const selects: string[] = [];
  if (whole.length > 0) {
    const read = `read_parquet(${listOf(whole.map((part) => part.path))}${options})`;
    if (ranges.length === 0 && names === undefined) return read;
    selects.push(`SELECT ${names ?? "*"} FROM ${read}`);
  }
  for (const { path, rows } of ranges) {
    const [start, end] = rows as readonly [number, number];
    const read = `read_parquet(${literal(path)}, file_row_number=true${paths})`;
    const window = `file_row_number >= ${start} AND file_row_number < ${end}`;
    selects.push(`SELECT ${names ?? "* EXCLUDE (file_row_number)"} FROM ${read} WHERE ${window}`);
  }
  return `(${selects.join(byName ? " UNION ALL BY NAME " : " UNION ALL ")})`;
}
