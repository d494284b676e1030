// Content keys: a task's key is a hash of what it does and of the keys of what it reads, down to
// the path, size and time of source files. So nothing is computed twice, and nothing stale is taken
// for the new.

import { createHash } from "node:crypto";
import type { InputRef, TaskOp } from "./task.ts";

/** Changes when the meaning of an operation changes, so that older outputs are not taken. */
const formatVersion = 1;

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

/** The key of a task that does `op` on `inputs`. */
export function taskKey(content: {
  readonly op: TaskOp;
  readonly inputs: readonly (readonly InputRef[])[];
  readonly parquet: unknown;
  readonly seed: number;
  readonly engine: string;
}): string {
  return contentKey({ formatVersion, ...content });
}

/** As {@link contentKey}, of bytes. */
export function bytesKey(bytes: Uint8Array): string {
  return createHash("sha256").update(bytes).digest("hex").slice(0, 32);
}
