// Files as they should be: written, read whole, in parts and beyond 4 GiB.

import {
  closeSync,
  existsSync,
  ftruncateSync,
  openSync,
  readdirSync,
  readFileSync,
  truncateSync,
  writeFileSync,
  writeSync,
} from "node:fs";
import { join } from "node:path";
import {
  dtypes,
  SafetensorsFile,
  SafetensorsWriter,
  StorageError,
  Tensor,
  writeSafetensors,
} from "@open-infra/tensor";
import { seededRandom, testSeed } from "@open-infra/testing";
import { describe, expect, it } from "vitest";
import { entry, errorOf, headerOf, scratch } from "./files.ts";

const { dir, freshDir, freshPath, rawFile } = scratch();

describe("a round trip", () => {
  it("keeps every dtype, shape, name and byte", () => {
    const random = seededRandom(testSeed());
    for (let round = 0; round < 20; round++) {
      const path = freshPath();
      const tensors = dtypes.map((dtype, i) => {
        const shape = Array.from({ length: random.int(0, 4) }, () => random.int(0, 5));
        const even = dtype === "e2m1" ? [...shape, 2] : shape;
        const tensor = Tensor.empty(
          even,
          dtype,
          random.pick(["a.", 'q"\\', "é.", "__proto__"]) + i,
        );
        const bytes = tensor.bytes();
        for (let at = 0; at < bytes.length; at++) bytes[at] = random.int(0, 256);
        return tensor;
      });
      writeSafetensors(path, tensors, { metadata: { format: "pt", note: "ünïcode" } });
      using file = SafetensorsFile.open(path);
      expect(file.metadata).toEqual({ format: "pt", note: "ünïcode" });
      expect(file.tensors.size).toBe(tensors.length);
      for (const tensor of tensors) {
        const name = tensor.name as string;
        const read = file.read(name);
        const hint = `seed ${random.seed}, round ${round}, ${tensor.describe()}`;
        expect(read.describe(), hint).toBe(tensor.describe());
        expect(Buffer.compare(read.bytes(), tensor.bytes()), hint).toBe(0);
        const { byteOffset, byteLength } = file.info(name);
        const raw = readFileSync(path).subarray(byteOffset, byteOffset + byteLength);
        expect(Buffer.compare(raw, tensor.bytes()), hint).toBe(0);
        // Readers that view the file in place need elements aligned.
        const width = tensor.size === 0 ? 1 : byteLength / tensor.size;
        expect(byteOffset % Math.max(1, width), hint).toBe(0);
      }
    }
  });

  it("takes a record, strided views, and no tensors at all", () => {
    const path = freshPath();
    const wide = Tensor.from([1, 2, 3, 4, 5, 6], [2, 3], "f32");
    writeSafetensors(path, { turned: wide.transpose(0, 1), "0": wide });
    using file = SafetensorsFile.open(path);
    expect([...file.read("turned").toFloat32()]).toEqual([1, 4, 2, 5, 3, 6]);
    expect(file.read("0").shape).toEqual([2, 3]);
    writeSafetensors(freshPath(), []);
    const none = rawFile("{}");
    using empty = SafetensorsFile.open(none);
    expect(empty.tensors.size).toBe(0);
  });

  it("reads parts, straight into the caller's memory", () => {
    const path = freshPath();
    writeSafetensors(path, { w: Tensor.from([0, 1, 2, 3, 4, 5, 6, 7], [8], "u8") });
    using file = SafetensorsFile.open(path);
    const memory = new Uint8Array(new SharedArrayBuffer(12));
    file.readInto("w", memory.subarray(2, 10));
    expect([...memory]).toEqual([0, 0, 0, 1, 2, 3, 4, 5, 6, 7, 0, 0]);
    const part = new Uint8Array(3);
    file.readRangeInto("w", 4, part);
    expect([...part]).toEqual([4, 5, 6]);
    for (const start of [6, -1, 0.5, Number.NaN]) {
      expect(() => file.readRangeInto("w", start, part)).toThrow("a range inside its 8 bytes");
    }
    expect(errorOf(() => file.readInto("w", part))).toMatchObject({
      key: "target of w",
      got: "3 bytes",
      allowed: "8 bytes",
    });
  });

  it("works beyond 4 GiB", () => {
    // A sparse file: one tensor of 5 GB that takes no room on disk, and one behind it.
    const big = 5_000_000_000;
    const header = headerOf({
      big: entry("U8", [big], [0, big]),
      last: entry("F32", [2], [big, big + 8]),
    });
    const path = rawFile(header);
    const start = 8 + header.length;
    const fd = openSync(path, "r+");
    ftruncateSync(fd, start + big + 8);
    writeSync(fd, Uint8Array.of(7), 0, 1, start + big - 1);
    writeSync(fd, new Uint8Array(Float32Array.of(1.5, -2).buffer), 0, 8, start + big);
    closeSync(fd);
    using file = SafetensorsFile.open(path);
    expect([...file.read("last").toFloat32()]).toEqual([1.5, -2]);
    const tail = new Uint8Array(2);
    file.readRangeInto("big", big - 2, tail);
    expect([...tail]).toEqual([0, 7]);
  });
});

describe("reading", () => {
  it("opens a file with a dtype unknown here, and refuses only that tensor", () => {
    const path = rawFile(
      headerOf({
        mask: entry("BOOL", [2], [0, 2]),
        w: entry("U8", [1], [2, 3]),
        d: entry("C64", [], [3, 11]),
      }),
      11,
    );
    using file = SafetensorsFile.open(path);
    expect([...file.tensors.keys()]).toEqual(["w"]);
    expect(Object.fromEntries(file.unsupported)).toEqual({ mask: "BOOL", d: "C64" });
    expect([...(file.read("w").raw() as Uint8Array)]).toEqual([1]);
    expect(errorOf(() => file.read("mask"))).toMatchObject({ key: "dtype of mask", got: "BOOL" });
    expect(errorOf(() => file.read("none"))).toMatchObject({ key: "none", got: "absent" });
  });

  it("accepts zero-size tensors between others", () => {
    const path = rawFile(
      headerOf({
        z: entry("F32", [0, 7], [4, 4]),
        b: entry("U8", [2], [4, 6]),
        a: entry("F32", [1], [0, 4]),
      }),
      6,
    );
    using file = SafetensorsFile.open(path);
    expect(file.read("z").describe()).toBe("z f32[0,7]");
    expect(file.info("b").byteOffset - file.info("a").byteOffset).toBe(4);
  });

  it("notices a file cut off after it was opened", () => {
    const path = freshPath();
    writeSafetensors(path, { w: Tensor.empty([100], "u8") });
    using file = SafetensorsFile.open(path);
    truncateSync(path, file.info("w").byteOffset + 10);
    expect(errorOf(() => file.read("w"))).toMatchObject({ key: "w" });
  });

  it("refuses a folder, a missing file, and use after disposal", () => {
    expect(errorOf(() => SafetensorsFile.open(dir)).got).toBe("not a regular file");
    expect(errorOf(() => SafetensorsFile.open(`${dir}/none`)).got).toContain("ENOENT");
    const path = freshPath();
    writeSafetensors(path, { w: Tensor.empty([1], "u8") });
    const file = SafetensorsFile.open(path);
    file[Symbol.dispose]();
    file[Symbol.dispose]();
    expect(() => file.read("w")).toThrow(StorageError);
  });
});

describe("the writer", () => {
  const specs = [
    { name: "bytes", dtype: "u8", shape: [4] },
    { name: "floats", dtype: "f32", shape: [2] },
  ] as const;

  it("takes tensors in any order and in pieces, and publishes only when whole", () => {
    const path = freshPath();
    using writer = new SafetensorsWriter(path, specs);
    writer.write("floats", Tensor.from([1, 2], [2], "f32"));
    writer.write("bytes", Uint8Array.of(1));
    expect(() => writer.finish()).toThrow("data of bytes is 1 bytes; expected 4 bytes");
    writer.write("bytes", Uint8Array.of(2, 3, 4));
    expect(existsSync(path)).toBe(false);
    writer.finish();
    using file = SafetensorsFile.open(path);
    expect([...file.read("bytes").bytes()]).toEqual([1, 2, 3, 4]);
    expect([...file.read("floats").toFloat32()]).toEqual([1, 2]);
    expect(() => writer.write("bytes", Uint8Array.of(1))).toThrow("no longer being written");
  });

  it("leaves nothing behind, and an older file as it was, when abandoned", () => {
    const folder = freshDir();
    const path = join(folder, "w.safetensors");
    writeFileSync(path, "old");
    {
      using writer = new SafetensorsWriter(path, specs);
      writer.write("bytes", new Uint8Array(4));
    }
    expect(readdirSync(folder)).toEqual(["w.safetensors"]);
    expect(readFileSync(path, "utf8")).toBe("old");
  });

  it("refuses what was not declared", () => {
    using writer = new SafetensorsWriter(freshPath(), specs);
    expect(() => writer.write("other", new Uint8Array(1))).toThrow("other is not declared");
    expect(() => writer.write("bytes", new Uint8Array(5))).toThrow(
      "data of bytes is 5 bytes; expected 4 bytes for u8[4]",
    );
    expect(() => writer.write("floats", Tensor.empty([2], "f16"))).toThrow(
      "floats is f16[2]; expected f32[2] as declared",
    );
  });

  it("refuses names twice, reserved names, unnamed tensors, half bytes and odd shapes", () => {
    const u8 = { dtype: "u8", shape: [1] } as const;
    const make = (...declared: ConstructorParameters<typeof SafetensorsWriter>[1][]): unknown =>
      new SafetensorsWriter(
        freshPath(),
        declared.flatMap((specs) => [...specs]),
      );
    const twice = [{ name: "a", ...u8 }];
    expect(() => make(twice, twice)).toThrow('name is "a"; expected unique tensor names');
    expect(() => make([{ name: "__metadata__", ...u8 }])).toThrow("unique tensor names");
    expect(() => make([{ name: "h", dtype: "e2m1", shape: [3] }])).toThrow("even number of e2m1");
    expect(() => make([{ name: "n", dtype: "u8", shape: [-1] }])).toThrow("dimension 0 of n is -1");
    expect(() => writeSafetensors(freshPath(), [Tensor.empty([1], "u8")])).toThrow(
      "a named tensor",
    );
    expect(() => new SafetensorsWriter(join(dir, "no", "where"), twice)).toThrow(StorageError);
  });
});
