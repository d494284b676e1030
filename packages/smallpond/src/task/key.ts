// Content keys: a task's key is a hash of what it does and of the keys of what it reads, down to
// the path, size and time of source files. So nothing is computed twice, and nothing stale is taken
// for the new.

import { createHash } from "node:crypto";
import type { InputRef, TaskOp } from "./task.ts";

/** Changes when the meaning of an operation changes, so that older outputs are not taken. */
const formatVersion = 3;

/** JSON with sorted keys, so that equal values give equal text. */
export function canonicalJson(value: unknown): string {
  if (Array.isArray(value)) return `[${value.map(canonicalJson).join(",")}]`;
  if (value !== null && typeof value === "object") {
    const entries = Object.entries(value)
      .filter(([, inner]) => inner !== undefined)
      .sort(([a], [b]) => (a < b ? -1 : 1))
      .map(([key, inner]) => `${JSON.stringify(key)}:${canonicalJson(inner)}`);
    return `{${entries.join(",")}}`;
  }
  return JSON.stringify(value) ?? "null";
}

/** 32 hexadecimal digits. */
export function contentKey(value: unknown): string {
  return createHash("sha256").update(canonicalJson(value)).digest("hex").slice(0, 32);
}

/** Keys of lists and data sets that many tasks share, so that each is read once. */
const sharedKeys = new WeakMap<object, string>();

function sharedKey(value: object, make: () => unknown): string {
  let key = sharedKeys.get(value);
  if (key === undefined) {
    key = contentKey(make());
    sharedKeys.set(value, key);
  }
  return key;
}

function refContent(ref: InputRef): unknown {
  if ("data" in ref) return sharedKey(ref.data, () => ref.data);
  return "tasks" in ref ? { ...ref, tasks: sharedKey(ref.tasks, () => ref.tasks) } : ref;
}

/** The key of a task that does `op` on `inputs`, which must not change any more. */
export function taskKey(content: {
  readonly op: TaskOp;
  readonly inputs: readonly (readonly InputRef[])[];
  readonly parquet: unknown;
  readonly seed: number;
  readonly engine: string;
  /** Its place and the number of partitions, which go into what it writes. */
  readonly partition?: Readonly<Record<string, number>>;
  readonly partitionCounts?: Readonly<Record<string, number>> | undefined;
}): string {
  const { inputs, op, ...rest } = content;
  const slots = inputs.map((refs) => sharedKey(refs, () => refs.map(refContent)));
  return contentKey({ formatVersion, ...rest, op: sharedKey(op, () => op), inputs: slots });
}

/** As {@link contentKey}, of bytes. */
export function bytesKey(bytes: Uint8Array): string {
  return createHash("sha256").update(bytes).digest("hex").slice(0, 32);
}
