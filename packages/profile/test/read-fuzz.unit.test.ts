// The reader against JSON.parse on random files in random pieces, and against damaged files: the
// same rows, or a typed error, whatever comes.

import { gzipSync } from "node:zlib";
import { type EventTable, readTrace, TraceError } from "@open-infra/profile/analyze";
import { seededRandom, testSeed } from "@open-infra/testing";
import { describe, expect, it } from "vitest";
import { plainRows, randomPieces, randomTrace } from "./trace-text.ts";

const bytesOf = (text: string): Uint8Array => new TextEncoder().encode(text);

/** The table, or the typed error; anything else is thrown on. */
async function outcome(read: Promise<EventTable>): Promise<EventTable | TraceError> {
  try {
    return await read;
  } catch (error) {
    if (error instanceof TraceError) return error;
    throw error;
  }
}

describe("a random trace", () => {
  it("gives the rows JSON.parse gives, in whatever pieces and window it comes", async () => {
    const random = seededRandom(testSeed());
    for (let round = 0; round < 150; round++) {
      const note = `seed ${random.seed}, round ${round}`;
      const trace = randomTrace(random, random.int(1, 40));
      const bytes = bytesOf(trace.text);
      const whole = random.next() < 0.3 ? gzipSync(bytes) : bytes;
      const windowBytes = random.pick([16, 17, 61, 256, 4096]);
      const table = await readTrace(randomPieces(whole, random), { windowBytes, keepArgs: true });
      expect(table.originUs, note).toBe(trace.originUs);
      const rows = plainRows(table);
      expect(rows.length, note).toBe(trace.rows.length);
      rows.forEach((row, i) => {
        const expected = trace.rows[i] as (typeof rows)[number];
        expect(Math.abs(row.startUs - expected.startUs), `${note}, row ${i}`).toBeLessThan(1e-6);
        expect({ ...row, startUs: 0 }, `${note}, row ${i}`).toEqual({ ...expected, startUs: 0 });
      });
      expect(table.metadata, note).toEqual(JSON.parse(JSON.stringify(trace.metadata)));
      expect(new Set(table.strings).size, note).toBe(table.strings.length);
    }
  });

  it("reads the same with a window that ends at every byte", async () => {
    const random = seededRandom(testSeed());
    const trace = randomTrace(random, 6);
    const bytes = bytesOf(trace.text);
    const whole = plainRows(await readTrace(bytes));
    for (let windowBytes = 16; windowBytes < bytes.length + 2; windowBytes++) {
      const rows = plainRows(await readTrace(bytes, { windowBytes }));
      expect(rows, `seed ${random.seed}, window ${windowBytes}`).toEqual(whole);
    }
  });
});

describe("a damaged trace", () => {
  it("that breaks off anywhere is a truncated one, and a tolerant reader keeps rows", async () => {
    const random = seededRandom(testSeed());
    const trace = randomTrace(random, 5);
    const bytes = bytesOf(trace.text.trimEnd());
    const rows = plainRows(await readTrace(bytes));
    for (let length = 0; length < bytes.length; length++) {
      const note = `seed ${random.seed}, ${length} bytes`;
      const error = await outcome(readTrace(bytes.subarray(0, length), { windowBytes: 64 }));
      expect(error, note).toBeInstanceOf(TraceError);
      const { problem, code, byteOffset } = error as TraceError;
      expect([problem, code], note).toEqual(["truncated", "input"]);
      expect(byteOffset, note).toBe(length);
      const kept = await outcome(readTrace(bytes.subarray(0, length), { tolerant: true }));
      // Before traceEvents there is nothing to keep.
      if (kept instanceof TraceError) continue;
      expect(kept.notes.stopped, note).toBeInstanceOf(TraceError);
      expect(kept.length, note).toBeLessThanOrEqual(rows.length);
      expect(
        plainRows(kept).map((row) => row.name),
        note,
      ).toEqual(rows.slice(0, kept.length).map((row) => row.name));
    }
  });

  it("with changed bytes is a table or a TraceError, plain and gzip, never else", async () => {
    const random = seededRandom(testSeed());
    for (let round = 0; round < 600; round++) {
      const plain = bytesOf(randomTrace(random, random.int(1, 8)).text);
      const bytes = new Uint8Array(random.next() < 0.4 ? gzipSync(plain) : plain);
      for (let k = random.int(1, 5); k > 0; k--)
        bytes[random.int(0, bytes.length)] = random.int(0, 256);
      const cut = random.next() < 0.3 ? bytes.subarray(0, random.int(0, bytes.length)) : bytes;
      const options = { windowBytes: 64, tolerant: random.next() < 0.5, keepArgs: true };
      await outcome(readTrace(randomPieces(cut, random), options));
    }
  });
});
