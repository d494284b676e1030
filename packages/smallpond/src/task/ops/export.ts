// A script task that writes its input's rows in the form a user asked for: Parquet with options of
// its own, delimited text, JSON, with folders by the values of columns.

import { readdirSync, statSync } from "node:fs";
import { join } from "node:path";
import type { DataSet } from "../../dataset/dataset.ts";
import { fromClause, identifier, literal } from "../../dataset/sql-text.ts";
import type { ParquetOptions } from "../task.ts";
import type { ScriptContext } from "./script.ts";
import { copyOptions, execute } from "./write.ts";

/** The form of a user's files. */
export interface ExportForm {
  readonly format: "parquet" | "csv" | "json";
  /** Not in the files but in the names of their folders. */
  readonly partitionBy: readonly string[];
  readonly parquet?: ParquetOptions;
  readonly header?: boolean;
  readonly delimiter?: string;
  readonly compression?: string;
}

/** File name endings: `.csv.gz`. */
export function extensionOf({ format, compression }: ExportForm): string {
  const packed = compression === "gzip" ? ".gz" : compression === "zstd" ? ".zst" : "";
  return `.${format}${format === "parquet" ? "" : packed}`;
}

/** One file, or one a folder and thread with `partitionBy`. */
export async function exportRows(
  { inputs, folder, connection, task }: ScriptContext,
  form: ExportForm,
): Promise<readonly DataSet[]> {
  const source = fromClause(inputs[0] as DataSet);
  const target = form.partitionBy.length > 0 ? folder : join(folder, `part-0${extensionOf(form)}`);
  const query = `SELECT * FROM ${source}`;
  await execute(task, `COPY (${query}) TO ${literal(target)} (${optionsOf(form)})`, connection);
  const names = readdirSync(folder, { recursive: true, encoding: "utf8" }).sort();
  const parts = names.flatMap((name) => {
    const path = join(folder, name);
    const info = statSync(path);
    return info.isFile() ? [{ path, bytes: info.size }] : [];
  });
  return [{ format: "files", parts }];
}

function optionsOf(form: ExportForm): string {
  const { format, partitionBy, header = true, delimiter = ",", compression = "none" } = form;
  const options: string[] = [];
  if (format === "parquet" && form.parquet !== undefined) options.push(copyOptions(form.parquet));
  if (format === "csv") {
    options.push(`FORMAT csv, HEADER ${header}, DELIMITER ${literal(delimiter)}`);
  }
  if (format === "json") options.push("FORMAT json");
  if (format !== "parquet") options.push(`COMPRESSION ${literal(compression)}`);
  if (partitionBy.length > 0) {
    options.push(`PARTITION_BY (${partitionBy.map(identifier).join(", ")})`);
    options.push(`FILE_EXTENSION ${literal(extensionOf(form).slice(1))}, OVERWRITE_OR_IGNORE true`);
  }
  return options.join(", ");
}
