// What a sink's files are called: as they were where that tells them apart, else with partition and
// number in the name.

import { basename, extname } from "node:path";
import type { DataSet, FilePart } from "../../dataset/dataset.ts";
import type { TaskOp } from "../task.ts";

/** Names that our own writers give to every task's files. */
const ownNames = /^(?:part-\d+|data_\d+|data_[\w-]+|empty)\.parquet$/;

interface Named {
  readonly part: FilePart;
  readonly name: string;
}

/**
 * A name for each file of each partition, none of them taken.
 *
 * @param partitions What was staged: `<partition>-<number>-<name>`, or files where they are for a
 *   manifest.
 */
export function nameFiles(
  { place, outputName, removeEmpty }: Extract<TaskOp, { kind: "sink-publish" }>,
  partitions: readonly DataSet[],
  taken: readonly string[],
): readonly Named[] {
  const files = partitions.flatMap((data, partition) =>
    data.parts
      .filter(({ numRows }) => !(removeEmpty && numRows === 0))
      .map((part, i) => ({ part, partition, i, name: nameOf(part, place.kind) })),
  );
  const uses = new Map<string, number>();
  for (const { name } of files) uses.set(name, (uses.get(name) ?? 0) + 1);
  const used = new Set(taken);
  return files.map(({ part, partition, i, name }) => {
    const end = extname(name);
    const stem = name.slice(0, name.length - end.length);
    const place = `${String(partition).padStart(5, "0")}-${i}`;
    const generic = ownNames.test(name);
    const head = outputName ?? (generic ? "part" : stem);
    const numbered = `${head}-${place}${end}`;
    const plain = !generic && outputName === undefined && uses.get(name) === 1;
    const free = firstFree(plain && !used.has(name) ? name : numbered, used);
    used.add(free);
    return { part, name: free };
  });
}

const nameOf = ({ path }: FilePart, kind: string): string => {
  const name = basename(path);
  return kind === "manifest" ? name : name.replace(/^\d+-\d+-/, "");
};

/** `part-0.parquet`, `part-0-1.parquet`, … */
function firstFree(name: string, used: ReadonlySet<string>): string {
  const end = extname(name);
  const stem = name.slice(0, name.length - end.length);
  let tried = name;
  for (let n = 1; used.has(tried); n++) tried = `${stem}-${n}${end}`;
  return tried;
}
