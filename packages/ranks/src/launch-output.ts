// What launched ranks print: passed through as it comes, or line by line with the rank before it.

import type { Readable } from "node:stream";

/** Where lines go; `process.stdout` is one. */
export interface LineSink {
  write(text: string | Uint8Array): unknown;
}

/** A line without an end is cut here, so that it costs no more memory. */
const lineLimit = 64 << 10;
const newline = 10;

/** Copies a stream line by line, each with `prefix`. */
export function copyLines(from: Readable, to: LineSink, prefix: string): void {
  const head = Buffer.from(prefix);
  let held: Buffer = Buffer.alloc(0);
  from.on("data", (chunk: Buffer) => {
    held = held.length === 0 ? chunk : Buffer.concat([held, chunk]);
    const lines: Buffer[] = [];
    for (;;) {
      const end = held.indexOf(newline);
      if (end < 0 && held.length < lineLimit) break;
      const cut = end < 0 ? lineLimit : end;
      lines.push(head, held.subarray(0, cut), Buffer.from("\n"));
      held = held.subarray(end < 0 ? cut : cut + 1);
    }
    // One write for all of them keeps lines of different ranks apart.
    if (lines.length > 0) to.write(Buffer.concat(lines));
  });
  from.on("end", () => {
    if (held.length > 0) to.write(Buffer.concat([head, held, Buffer.from("\n")]));
  });
}

/** Copies a stream as it is. */
export function copyBytes(from: Readable, to: LineSink): void {
  from.on("data", (chunk: Buffer) => to.write(chunk));
}
