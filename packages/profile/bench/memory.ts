// How much memory reading takes beside what is kept: `node --expose-gc
// --conditions=@open-infra/source packages/profile/bench/memory.ts [MEGABYTES]`. A process of its
// own, because its peak is the figure.

import { execFileSync } from "node:child_process";
import { closeSync, mkdtempSync, openSync, readSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { readTrace } from "@open-infra/profile/analyze";

if (globalThis.gc === undefined) throw new Error("run with --expose-gc");
const collect = globalThis.gc;

/** Bytes in use after a collection: objects and buffers. */
function inUse(): number {
  collect();
  const { heapUsed, arrayBuffers } = process.memoryUsage();
  return heapUsed + arrayBuffers;
}

const folder = mkdtempSync(join(tmpdir(), "trace-memory-"));
process.on("exit", () => rmSync(folder, { recursive: true }));

/** A file of that size. A process of its own writes it, so that its garbage is not counted here. */
function makeFile(bytes: number): string {
  const path = join(folder, `${bytes}.json`);
  const program = `
    import { writeFileSync } from "node:fs";
    import { kinetoText } from ${JSON.stringify(new URL("./kineto-text.ts", import.meta.url).href)};
    for (const piece of kinetoText({ bytes: ${bytes} })) {
      writeFileSync(${JSON.stringify(path)}, piece, { flag: "a" });
    }`;
  const flags = ["--conditions=@open-infra/source", "--input-type=module", "--eval", program];
  execFileSync(process.execPath, flags);
  return path;
}

/** The file's bytes, all pieces in the same memory. */
function* pieces(path: string): Generator<Uint8Array> {
  const fd = openSync(path, "r");
  const buffer = new Uint8Array(1 << 18);
  for (let read = 1; read > 0; ) {
    read = readSync(fd, buffer);
    yield buffer.subarray(0, read);
  }
  closeSync(fd);
}

const bytes = Number(process.argv[2] ?? 400) * 1e6;
const file = makeFile(bytes);
// Small first, so that code and the young generation are there.
await readTrace(pieces(makeFile(20e6)));
const before = inUse();
const peakBefore = process.resourceUsage().maxRSS * 1024;
const table = await readTrace(pieces(file));
const peak = process.resourceUsage().maxRSS * 1024 - peakBefore;
const kept = inUse() - before;
const mega = (value: number): string => `${(value / 1e6).toFixed(0)} MB`;
process.stdout.write(
  `${mega(bytes)} of text, ${table.length} events: the table keeps ${mega(kept)}; ` +
    `the process grew by ${mega(peak)} at its peak, ${(peak / kept).toFixed(2)} times that\n`,
);
