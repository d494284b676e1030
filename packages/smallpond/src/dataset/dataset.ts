// What flows between tasks: descriptors of data on a shared file system, never the data. Plain data
// throughout, so that they go through JSON, over a wire, and into content keys.

/** A file, or a range of its rows. */
export interface FilePart {
  readonly path: string;
  /** First row and the one after the last; all rows without. Parquet only. */
  readonly rows?: readonly [start: number, end: number];
  /** Rows in the part, where known. */
  readonly numRows?: number;
  readonly bytes?: number;
  /** It has no rows, and tells the columns of what has no files. */
  readonly placeholder?: true;
}

/** Names and DuckDB types, in order. */
export type Schema = Readonly<Record<string, string>>;

/** Columns that reading makes: a file's path, a row's number within its file (Parquet only). */
export type GeneratedColumn = "filename" | "file_row_number";

/** What any data may be seen through; see view.ts. */
export interface Viewed {
  readonly generated?: readonly GeneratedColumn[];
  /** SELECT lists over the files' rows, each over the result of the one before. */
  readonly selects?: readonly (readonly string[])[];
}

/** Parquet files; a missing column of one file is NULL with `unionByName`, else an error. */
export interface ParquetData extends Viewed {
  readonly format: "parquet";
  readonly parts: readonly FilePart[];
  /** Columns to read, all without. */
  readonly columns?: readonly string[];
  readonly unionByName?: boolean;
  /** Whether `name=value` in paths are columns; as DuckDB finds it without. */
  readonly hivePartitioning?: boolean;
}

/** Delimited text without a header unless it says so. */
export interface CsvData extends Viewed {
  readonly format: "csv";
  readonly parts: readonly FilePart[];
  readonly schema: Schema;
  readonly delimiter: string;
  readonly header: boolean;
  readonly text?: TextOptions;
}

/** How delimited text is read; DuckDB's defaults without. */
export interface TextOptions {
  readonly quote?: string;
  readonly escape?: string;
  /** What stands for NULL. @default nothing between two delimiters */
  readonly nullText?: string;
  /** Lines before the header or the first row. */
  readonly skipRows?: number;
  /** `%d/%m/%Y`. */
  readonly dateFormat?: string;
  readonly timestampFormat?: string;
  readonly maxLineBytes?: number;
  /** Rows that do not fit the schema are left out. @default false, they are errors */
  readonly ignoreErrors?: boolean;
  readonly compression?: "none" | "gzip" | "zstd";
}

/** JSON objects, one a line unless it says so. */
export interface JsonData extends Viewed {
  readonly format: "json";
  readonly parts: readonly FilePart[];
  readonly schema: Schema;
  readonly json?: JsonOptions;
}

/** How JSON is read. */
export interface JsonOptions {
  /** @default "newline_delimited" */
  readonly format?: "newline_delimited" | "array" | "unstructured";
  /** @default 1 GiB */
  readonly maxObjectBytes?: number;
  readonly ignoreErrors?: boolean;
  readonly compression?: "none" | "gzip" | "zstd";
}

/** A table that a DuckDB extension reads whole: Delta Lake, Iceberg. */
export interface TableData extends Viewed {
  readonly format: "table";
  readonly parts: readonly FilePart[];
  readonly reader: "delta_scan" | "iceberg_scan";
}

/** Files of no known form, as scripts write them. */
export interface FilesData extends Viewed {
  readonly format: "files";
  readonly parts: readonly FilePart[];
}

export type DataSet = ParquetData | CsvData | JsonData | TableData | FilesData;

/**
 * The same data under more parts; all must be of one form. Placeholders are left out where others
 * tell the columns, so that thousands of empty pieces need not be opened.
 */
export function concatData(sets: readonly DataSet[]): DataSet {
  const [first, ...rest] = sets;
  if (first === undefined) return { format: "files", parts: [] };
  if (rest.length === 0) return first;
  const parts = sets.flatMap((set) => set.parts);
  if (first.format !== "parquet") return { ...first, parts };
  const parquet = sets as readonly ParquetData[];
  const byName = parquet.some(({ unionByName }) => unionByName);
  const filled = byName ? parts : parts.filter(({ placeholder }) => !placeholder);
  return {
    ...first,
    parts: filled.length > 0 ? filled : parts.slice(0, 1),
    ...(byName && { unionByName: true }),
    // Folders of a cut look like columns; that they are none holds for all of it.
    ...(parquet.some((set) => set.hivePartitioning === false) && { hivePartitioning: false }),
  };
}

/** Rows, if every part knows its own. */
export function knownRows(data: DataSet): number | undefined {
  let rows = 0;
  for (const part of data.parts) {
    if (part.numRows === undefined) return undefined;
    rows += part.numRows;
  }
  return rows;
}

/** A data set over some of another's parts; over none, it keeps the columns and has no rows. */
export function withParts(data: DataSet, parts: readonly FilePart[]): DataSet {
  const [first] = data.parts;
  if (parts.length > 0 || data.format !== "parquet" || first === undefined)
    return { ...data, parts };
  return { ...data, parts: [{ path: first.path, rows: [0, 0], numRows: 0, placeholder: true }] };
}
