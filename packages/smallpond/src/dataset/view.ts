// Another look at the same files: some of their columns, expressions over them, columns that only
// reading makes. Descriptors change, files do not, so that a view costs no task.

import type { DataSet, GeneratedColumn } from "./dataset.ts";
import { identifier } from "./sql-text.ts";

/** What a view changes. */
export interface FileView {
  /** Columns and expressions, `upper(host) AS name`, as in a SELECT list; all columns without. */
  readonly columns?: readonly string[];
  /** Columns that reading makes, after the others. */
  readonly generated?: readonly GeneratedColumn[];
  /** Parquet: columns are matched by name, and missing ones are NULL. */
  readonly unionByName?: boolean;
}

/** Data as a view shows it; views of views add up. */
export function viewed(data: DataSet, { columns, generated = [], unionByName }: FileView): DataSet {
  const before = data.selects ?? [];
  const made = generated.filter((name) => !data.generated?.includes(name));
  // What an earlier view chose lacks what reading makes only now.
  const earlier = before.map((list) => withNames(list, made));
  const listed = columns && withNames(columns, generated);
  const selects = listed === undefined ? earlier : [...earlier, listed];
  return {
    ...data,
    ...(made.length > 0 && { generated: [...(data.generated ?? []), ...made] }),
    ...(selects.length > 0 && { selects }),
    ...(unionByName !== undefined && data.format === "parquet" && { unionByName }),
  };
}

function withNames(list: readonly string[], names: readonly GeneratedColumn[]): readonly string[] {
  return [...list, ...names.filter((name) => !list.includes(name)).map(identifier)];
}
