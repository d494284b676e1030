// Checkpoints of one file or many, whole and broken.

import { mkdirSync, readFileSync, rmSync, symlinkSync, truncateSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { Checkpoint, StorageError, Tensor, writeSafetensors } from "@open-infra/tensor";
import { requirement, sharedDir } from "@open-infra/testing";
import { describe, expect, it } from "vitest";
import { entry, errorOf, scratch } from "./files.ts";

const { freshDir, rawFile } = scratch();

describe("a checkpoint", () => {
  const index = (folder: string, content: unknown): void =>
    writeFileSync(
      join(folder, "model.safetensors.index.json"),
      typeof content === "string" ? content : JSON.stringify(content),
    );

  function sharded(): string {
    const folder = freshDir();
    const a = Tensor.from([1, 2], [2], "bf16");
    writeSafetensors(join(folder, "model-1.safetensors"), { a, unused: a });
    writeSafetensors(join(folder, "model-2.safetensors"), { b: Tensor.from([3], [1], "f32") });
    index(folder, {
      metadata: {},
      weight_map: { a: "model-1.safetensors", b: "model-2.safetensors" },
    });
    return folder;
  }

  it("reads one file, or shards through their index", () => {
    using shards = Checkpoint.open(sharded());
    expect([...shards.tensors.keys()]).toEqual(["a", "b"]);
    expect(shards.totalBytes).toBe(8);
    expect(shards.info("b")).toMatchObject({
      dtype: "f32",
      shape: [1],
      file: "model-2.safetensors",
    });
    expect([...shards.read("a").toFloat32()]).toEqual([1, 2]);
    const target = new Uint8Array(4);
    shards.readInto("b", target);
    expect([...new Float32Array(target.buffer)]).toEqual([3]);
    shards.readRangeInto("b", 2, target.subarray(0, 2));
    expect(target[1]).toBe(0x40);
    expect([shards.has("a"), shards.has("unused")]).toEqual([true, false]);
    expect(() => shards.read("unused")).toThrow("unused is absent; expected one of its 2 tensors");

    const folder = freshDir();
    writeSafetensors(join(folder, "model.safetensors"), { w: Tensor.empty([3], "u8") });
    using single = Checkpoint.open(folder);
    expect(single.info("w").file).toBe("model.safetensors");
    single[Symbol.dispose]();
    expect(() => single.read("w")).toThrow(StorageError);
  });

  it("follows the links of a hub cache", () => {
    const blobs = freshDir();
    writeSafetensors(join(blobs, "0123abcd"), { w: Tensor.empty([3], "u8") });
    const folder = freshDir();
    symlinkSync(join(blobs, "0123abcd"), join(folder, "shard.safetensors"));
    index(folder, { weight_map: { w: "shard.safetensors" } });
    using checkpoint = Checkpoint.open(folder);
    expect(checkpoint.read("w").size).toBe(3);
  });

  it("knows a tensor of a dtype unknown here, and says so when it is asked for", () => {
    const folder = freshDir();
    const bytes = readFileSync(rawFile(`{"m":${entry("BOOL", [2], [0, 2])}}`, 2));
    writeFileSync(join(folder, "model.safetensors"), bytes);
    using checkpoint = Checkpoint.open(folder);
    expect([checkpoint.has("m"), checkpoint.tensors.size]).toEqual([true, 0]);
    expect(() => checkpoint.info("m")).toThrow("dtype of m is BOOL; expected F32");
  });

  const broken: readonly [string, (folder: string) => void, string][] = [
    [
      "missing altogether",
      (f) => rmSync(join(f, "model.safetensors.index.json")),
      "weights is absent; expected model.safetensors or model.safetensors.index.json",
    ],
    [
      "with a shard missing",
      (f) => rmSync(join(f, "model-2.safetensors")),
      "naming 1 of 2 files that are missing (model-2.safetensors)",
    ],
    ["with an index that is not JSON", (f) => index(f, "{"), "index is not JSON"],
    ["with an index that is a list", (f) => index(f, []), "index is []"],
    ["without a weight map", (f) => index(f, {}), "weight_map is undefined; expected an object"],
    ["with a list as weight map", (f) => index(f, { weight_map: ["a"] }), 'weight_map is ["a"]'],
    ["with a number as file", (f) => index(f, { weight_map: { a: 1 } }), "file of a is 1"],
    [
      "escaping upward",
      (f) => index(f, { weight_map: { a: "../model-1.safetensors" } }),
      'file of a is "../model-1.safetensors"; expected the name of',
    ],
    [
      "escaping by an absolute path",
      (f) => index(f, { weight_map: { a: "/etc/x.safetensors" } }),
      "expected the name of a .safetensors file in the same folder",
    ],
    [
      "escaping with a backslash",
      (f) => index(f, { weight_map: { a: "..\\x.safetensors" } }),
      "in the same folder",
    ],
    [
      "naming another kind of file",
      (f) => index(f, { weight_map: { a: "pytorch_model.bin" } }),
      "pytorch_model.bin",
    ],
    [
      "naming a tensor twice",
      (f) => index(f, '{"weight_map":{"a":"model-1.safetensors","a":"model-2.safetensors"}}'),
      '"a" twice',
    ],
    [
      "naming a tensor its shard lacks",
      (f) => index(f, { weight_map: { zz: "model-1.safetensors" } }),
      "zz is placed in model-1.safetensors, which does not hold it",
    ],
    [
      "with a damaged shard",
      (f) => truncateSync(join(f, "model-1.safetensors"), 30),
      "model-1.safetensors: header length",
    ],
    [
      "with a folder as shard",
      (f) => {
        rmSync(join(f, "model-1.safetensors"));
        mkdirSync(join(f, "model-1.safetensors"));
      },
      "model-1.safetensors: file is not a regular file",
    ],
    [
      "with an index of 200 MB",
      (f) => truncateSync(join(f, "model.safetensors.index.json"), 200_000_000),
      "file is 200000000 bytes; expected at most 100000000",
    ],
  ];
  it.each(broken)("%s is refused", (_, damage, message) => {
    const folder = sharded();
    damage(folder);
    expect(errorOf(() => Checkpoint.open(folder)).message).toContain(message);
  });
});

const gold = sharedDir("gold/v3-fp8");
const missing = "the reference folder ../shared is not beside this checkout; nothing to install";

describe.skipIf(
  requirement("safetensors of another writer", gold !== undefined || missing, "optional"),
)("files of another writer", () => {
  it("are read whole", () => {
    using checkpoint = Checkpoint.open(gold as string);
    for (const [name, { dtype, byteLength }] of checkpoint.tensors) {
      const tensor = checkpoint.read(name);
      expect(tensor.byteLength).toBe(byteLength);
      const finite = tensor.toFloat32().every(Number.isFinite);
      expect(finite, `${name} of ${dtype}`).toBe(true);
    }
    expect(checkpoint.tensors.size).toBeGreaterThan(100);
  });
});
