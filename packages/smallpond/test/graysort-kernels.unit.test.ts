// The sort benchmark's parts by themselves: the generator against published records and checksums,
// orders against a plain sort, the validator against outputs that are wrong in known ways.

import { crc32 } from "node:zlib";
import { seededRandom, testSeed } from "@open-infra/testing";
import { expect, test } from "vitest";
import { checksumOf } from "../src/graysort/checksum.ts";
import { increment, Lcg128, limbsOf, multiplier, stateAfter } from "../src/graysort/lcg128.ts";
import { gatherRecords, recordOrder } from "../src/graysort/order.ts";
import { type GeneratorOptions, RecordGenerator, recordBytes } from "../src/graysort/records.ts";
import { choosePoints, SplitPoints } from "../src/graysort/splits.ts";
import { mergeSummaries, type SortSummary, SortValidator } from "../src/graysort/validate.ts";

function generate(count: number, options: GeneratorOptions): Uint8Array {
  const records = new Uint8Array(count * recordBytes);
  new RecordGenerator(options).fill(records);
  return records;
}

const recordAt = (records: Uint8Array, i: number): Uint8Array =>
  records.subarray(i * recordBytes, (i + 1) * recordBytes);

const list = (records: Uint8Array): Uint8Array[] =>
  Array.from({ length: records.length / recordBytes }, (_, i) => recordAt(records, i));

const join = (records: readonly Uint8Array[]): Uint8Array =>
  Uint8Array.from(Buffer.concat(records));

function summarize(records: Uint8Array): SortSummary {
  const validator = new SortValidator();
  validator.add(records);
  return validator.summary();
}

const kinds: GeneratorOptions[] = [
  { format: "binary" },
  { format: "ascii" },
  { format: "binary", skewed: true },
  { format: "ascii", skewed: true },
];

test("the generator's numbers are those of its formula, and a jump is as many steps", () => {
  const mask = (1n << 128n) - 1n;
  let state = 0n;
  const generator = new Lcg128(0n);
  for (let i = 1n; i <= 300n; i++) {
    state = (multiplier * state + increment) & mask;
    generator.next();
    const { x0, x1, x2, x3, x4, x5 } = generator;
    expect([x0, x1, x2, x3, x4, x5]).toEqual(limbsOf(state));
    expect(stateAfter(i)).toBe(state);
  }
});

test("records are the published ones", () => {
  // The million records of Hadoop's TeraGen have this checksum in its documentation and tests.
  expect(checksumOf(generate(1_000_000, { format: "binary" })).toString(16)).toBe("7a27e2d0d55de");
  const [first, second, third] = list(generate(3, { format: "ascii" })).map((record) =>
    Buffer.from(record).toString("latin1"),
  );
  // The first lines that `gensort -a` writes.
  const digits = "0".repeat(31);
  expect(first).toBe(
    `AsfAGHM5om  ${digits}0  0000222200002222000022220000222200002222000000001111\r\n`,
  );
  expect(second).toBe(
    `~sHd0jDv6X  ${digits}1  77779999444488885555CCCC777755555555BBBB666644446666\r\n`,
  );
  expect(third?.slice(0, 10)).toBe("uI^EYm8s=|");
});

test("a range of records is the same, whatever was generated before it", () => {
  const seed = testSeed();
  const random = seededRandom(seed);
  for (const options of kinds) {
    const all = generate(2000, options);
    for (let i = 0; i < 10; i++) {
      const first = random.int(0, 1990);
      const count = random.int(1, 2000 - first);
      const part = generate(count, { ...options, first });
      const same = all.subarray(first * recordBytes, (first + count) * recordBytes);
      expect(Buffer.compare(part, same), `seed ${seed}, from ${first}`).toBe(0);
    }
  }
  const far = generate(2, { format: "ascii", first: 2 ** 40 - 1 });
  expect(Buffer.from(far.subarray(12, 44)).toString()).toBe(`${"0".repeat(22)}FFFFFFFFFF`);
  expect(Buffer.from(far.subarray(112, 144)).toString()).toBe(`${"0".repeat(21)}10000000000`);
});

test("the checksum is the sum of zlib's CRC-32s", () => {
  const records = generate(500, { format: "binary", first: 77 });
  const sum = list(records).reduce((total, record) => total + BigInt(crc32(record)), 0n);
  expect(checksumOf(records)).toBe(sum);
});

test("orders are those of a plain sort, with few keys, equal ones, short and long runs", () => {
  const seed = testSeed();
  const random = seededRandom(seed);
  for (const count of [0, 1, 2, 15, 16, 17, 2047, 2048, 9000]) {
    for (const letters of [1, 2, 256]) {
      const records = generate(count, { format: "binary", first: random.int(0, 1e9) });
      const equal = random.int(0, 100);
      for (let i = 0; i < count; i++) {
        const record = recordAt(records, i);
        for (let j = 0; j < equal; j++) record[j] = random.int(0, letters);
      }
      const order = recordOrder(records);
      const sorted = new Uint8Array(records.length);
      gatherRecords(records, order, 0, sorted);
      const plain = join(list(records).toSorted(Buffer.compare));
      const what = `seed ${seed}, ${count} records, ${equal} bytes of ${letters} letters`;
      expect(Buffer.compare(sorted, plain), what).toBe(0);
    }
  }
});

test("partitions are in order, and even where a few keys have most of the records", () => {
  for (const options of kinds) {
    const records = generate(20_000, options);
    if (options.skewed) for (let i = 0; i < 12_000; i++) recordAt(records, i).fill(65, 0, 10);
    const sample = join(list(records).filter((_, i) => i % 5 === 0));
    const points = choosePoints(sample, 10);
    const splits = new SplitPoints(points);
    const sizes = new Array<number>(10).fill(0);
    const pieces = list(points);
    for (const record of list(records)) {
      const partition = splits.partitionOf(record, 0);
      sizes[partition] = (sizes[partition] ?? 0) + 1;
      const before = pieces.filter((point) => Buffer.compare(point, record) <= 0).length;
      expect(partition).toBe(before);
    }
    for (const size of sizes) expect(Math.abs(size - 2000)).toBeLessThan(300);
  }
  const one = new SplitPoints(choosePoints(generate(5, { format: "ascii" }), 1));
  expect(one.partitionOf(generate(1, { format: "ascii" }), 0)).toBe(0);
  const none = new SplitPoints(choosePoints(new Uint8Array(0), 4));
  expect(none.partitionOf(generate(1, { format: "ascii" }), 0)).toBe(0);
});

test("what is wrong with an output shows in its summary", () => {
  const sorted = list(generate(1000, { format: "binary" })).toSorted(Buffer.compare);
  const right = summarize(join(sorted));
  expect(right).toMatchObject({ records: 1000, inversions: 0, duplicateKeys: 0 });
  const dropped = summarize(join(sorted.toSpliced(500, 1)));
  expect(dropped).toMatchObject({ records: 999, inversions: 0 });
  expect(dropped.checksum).not.toBe(right.checksum);
  const doubled = summarize(join(sorted.toSpliced(500, 1, ...sorted.slice(499, 500))));
  expect(doubled).toMatchObject({ records: 1000, inversions: 0, duplicateKeys: 1 });
  expect(doubled.checksum).not.toBe(right.checksum);
  const swapped = sorted.toSpliced(300, 2, sorted[301] as Uint8Array, sorted[300] as Uint8Array);
  expect(summarize(join(swapped))).toMatchObject({
    inversions: 1,
    firstInversion: 301,
    checksum: right.checksum,
  });
  const flipped = join(sorted);
  flipped[70_050] = (flipped[70_050] as number) ^ 1;
  expect(summarize(flipped)).toMatchObject({ inversions: 0, duplicateKeys: 0 });
  expect(summarize(flipped).checksum).not.toBe(right.checksum);
});

test("a summary does not depend on how the records come", () => {
  const seed = testSeed();
  const random = seededRandom(seed);
  const records = generate(3000, { format: "ascii", skewed: true });
  const whole = summarize(records);
  const pieces: Uint8Array[] = [];
  for (let at = 0; at < 3000; ) {
    const count = Math.min(3000 - at, random.int(0, 700));
    pieces.push(records.subarray(at * recordBytes, (at + count) * recordBytes));
    at += count;
  }
  const validator = new SortValidator();
  // One buffer that is used again, as files are read.
  const buffer = Buffer.alloc(records.length);
  for (const piece of pieces) {
    buffer.set(piece);
    validator.add(buffer.subarray(0, piece.length));
  }
  expect(validator.summary(), `seed ${seed}`).toEqual(whole);
  expect(mergeSummaries(pieces.map(summarize)), `seed ${seed}`).toEqual(whole);
  expect(mergeSummaries([]).records).toBe(0);
});
