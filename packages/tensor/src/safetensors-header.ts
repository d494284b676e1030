// The header of a safetensors file: eight bytes of length, then JSON that says where each tensor
// lies. This file turns untrusted bytes into checked facts and back; it opens nothing. The rules
// are those of the reference implementation (huggingface/safetensors): offsets cover the data
// exactly, without holes, overlaps or a tail.

import { type DType, dtypeBits } from "./dtype.ts";
import { CheckpointError } from "./errors.ts";
import { findDuplicateKey } from "./json-keys.ts";

/** Where a tensor lies in a file and what it is. */
export interface TensorInfo {
  readonly name: string;
  readonly dtype: DType;
  readonly shape: readonly number[];
  /** Of the first byte, from the start of the file. */
  readonly byteOffset: number;
  readonly byteLength: number;
}

/**
 * A header as read: the tensors this project has a dtype for, and the names of those it has not.
 */
export interface SafetensorsHeader {
  readonly metadata: Readonly<Record<string, string>>;
  readonly tensors: ReadonlyMap<string, TensorInfo>;
  /** Tensors of a dtype that exists in the format but not here, with that dtype's name. */
  readonly unsupported: ReadonlyMap<string, string>;
}

/** The format's own limit on the JSON part, in bytes. */
export const maxHeaderBytes = 100_000_000;

/** The format's names of the dtypes of this project. */
const dtypeOfFile: ReadonlyMap<string, DType> = new Map<string, DType>([
  ["F32", "f32"],
  ["F16", "f16"],
  ["BF16", "bf16"],
  ["F8_E4M3", "e4m3fn"],
  ["F8_E5M2", "e5m2"],
  ["F8_E8M0", "ue8m0"],
  ["F4", "e2m1"],
  ["I32", "i32"],
  ["I64", "i64"],
  ["U8", "u8"],
  ["F64", "f64"],
]);

const fileOfDtype: ReadonlyMap<DType, string> = new Map(
  [...dtypeOfFile].map(([file, dtype]) => [dtype, file]),
);

/** Bits per element of the format's dtypes that this project cannot hold. */
const unsupportedBits: ReadonlyMap<string, number> = new Map([
  ["BOOL", 8],
  ["I8", 8],
  ["I16", 16],
  ["U16", 16],
  ["U32", 32],
  ["U64", 64],
  ["C64", 64],
  ["F6_E2M3", 6],
  ["F6_E3M2", 6],
  ["F8_E4M3FNUZ", 8],
  ["F8_E5M2FNUZ", 8],
]);

/** The dtype names a tensor may have to be read here, for error messages. */
export const supportedFileDtypes: string = [...dtypeOfFile.keys()].join(", ");

/** A value as it came, short enough for an error message. */
export function excerpt(value: unknown): string {
  const text = typeof value === "string" ? JSON.stringify(value) : String(JSON.stringify(value));
  return text.length <= 80 ? text : `${text.slice(0, 77)}...`;
}

function isObject(value: unknown): value is Record<string, unknown> {
  return typeof value === "object" && value !== null && !Array.isArray(value);
}

/**
 * Parses JSON from a file and requires an object without repeated keys.
 *
 * @throws CheckpointError naming `file` and `key` (what part of it this is).
 */
export function parseJsonObject(
  file: string,
  key: string,
  bytes: Uint8Array,
): Record<string, unknown> {
  let text: string;
  let value: unknown;
  try {
    text = new TextDecoder("utf-8", { fatal: true, ignoreBOM: true }).decode(bytes);
    value = JSON.parse(text);
  } catch (cause) {
    const reason = cause instanceof Error ? cause.message.slice(0, 120) : String(cause);
    throw new CheckpointError(file, key, `not JSON (${reason})`, "a JSON object in UTF-8", {
      cause,
    });
  }
  if (!isObject(value)) throw new CheckpointError(file, key, excerpt(value), "a JSON object");
  const twice = findDuplicateKey(text);
  if (twice !== undefined) {
    throw new CheckpointError(file, key, `an object with ${excerpt(twice)} twice`, "unique keys");
  }
  return value;
}

/**
 * Element count of a shape.
 *
 * @throws CheckpointError if a dimension is not a count, or the product is beyond 2^53.
 */
function countElements(file: string, name: string, shape: unknown): number {
  if (!Array.isArray(shape)) {
    throw new CheckpointError(file, `shape of ${name}`, excerpt(shape), "an array of integers");
  }
  let count = 1;
  for (const [i, n] of shape.entries()) {
    if (!Number.isSafeInteger(n) || n < 0) {
      throw new CheckpointError(
        file,
        `dimension ${i} of ${name}`,
        excerpt(n),
        "a non-negative integer",
      );
    }
  }
  if (shape.includes(0)) return 0;
  for (const n of shape as number[]) {
    count *= n;
    if (!Number.isSafeInteger(count * 8)) {
      throw new CheckpointError(file, `shape of ${name}`, excerpt(shape), "at most 2^50 elements");
    }
  }
  return count;
}

interface Entry {
  readonly name: string;
  readonly dtypeName: string;
  readonly shape: readonly number[];
  readonly begin: number;
  readonly end: number;
}

/** Checks one tensor's entry against itself; ranges against each other come later. */
function parseEntry(file: string, name: string, value: unknown): Entry {
  if (!isObject(value)) {
    throw new CheckpointError(
      file,
      `entry of ${name}`,
      excerpt(value),
      "an object with dtype, shape and data_offsets",
    );
  }
  const { dtype, shape, data_offsets: offsets } = value;
  const known = typeof dtype === "string" ? dtypeOfFile.get(dtype) : undefined;
  const bits = known === undefined ? unsupportedBits.get(String(dtype)) : dtypeBits[known];
  if (typeof dtype !== "string" || bits === undefined) {
    throw new CheckpointError(file, `dtype of ${name}`, excerpt(dtype), supportedFileDtypes);
  }
  const count = countElements(file, name, shape);
  if (
    !Array.isArray(offsets) ||
    offsets.length !== 2 ||
    !offsets.every((o) => Number.isSafeInteger(o) && o >= 0) ||
    offsets[0] > offsets[1]
  ) {
    throw new CheckpointError(
      file,
      `data_offsets of ${name}`,
      excerpt(offsets),
      "two non-negative integers, begin not after end",
    );
  }
  const [begin, end] = offsets as [number, number];
  if ((count * bits) % 8 !== 0 || end - begin !== (count * bits) / 8) {
    throw new CheckpointError(
      file,
      `data_offsets of ${name}`,
      `${end - begin} bytes`,
      `${(count * bits) / 8} bytes for ${dtype} of shape [${excerpt(shape).slice(1, -1)}]`,
    );
  }
  return { name, dtypeName: dtype, shape: shape as number[], begin, end };
}

function parseMetadata(file: string, value: unknown): Record<string, string> {
  if (value === undefined) return {};
  if (!isObject(value)) {
    throw new CheckpointError(file, "__metadata__", excerpt(value), "an object of strings");
  }
  for (const [key, entry] of Object.entries(value)) {
    if (typeof entry !== "string") {
      throw new CheckpointError(file, `__metadata__ ${key}`, excerpt(entry), "a string");
    }
  }
  return value as Record<string, string>;
}

/** Requires that the entries tile `0..dataBytes` exactly. */
function checkCoverage(file: string, entries: readonly Entry[], dataBytes: number): void {
  let at = 0;
  let before = "the header";
  for (const entry of entries.toSorted((a, b) => a.begin - b.begin || a.end - b.end)) {
    if (entry.end > dataBytes) {
      throw new CheckpointError(
        file,
        `data_offsets of ${entry.name}`,
        `[${entry.begin}, ${entry.end}]`,
        `a range inside the file's ${dataBytes} bytes of data (is the file truncated?)`,
      );
    }
    if (entry.begin !== at) {
      const fault = entry.begin < at ? "overlapping" : "leaving a hole after";
      throw new CheckpointError(
        file,
        `data_offsets of ${entry.name}`,
        `beginning at ${entry.begin}, ${fault} ${before}`,
        `a begin of ${at}`,
      );
    }
    at = entry.end;
    before = entry.name;
  }
  if (at !== dataBytes) {
    throw new CheckpointError(
      file,
      "data",
      `${dataBytes} bytes`,
      `${at} bytes, where its last tensor ends`,
    );
  }
}

/** The first eight bytes: the length of the JSON that follows, checked against the file's size. */
export function parseHeaderLength(file: string, prefix: Uint8Array, fileBytes: number): number {
  if (prefix.byteLength < 8) {
    throw new CheckpointError(file, "header", `${fileBytes} bytes of file`, "at least 8 bytes");
  }
  const length = new DataView(prefix.buffer, prefix.byteOffset, 8).getBigUint64(0, true);
  if (length > BigInt(maxHeaderBytes) || length > BigInt(fileBytes - 8)) {
    throw new CheckpointError(
      file,
      "header length",
      `${length}`,
      `at most ${Math.min(maxHeaderBytes, fileBytes - 8)} (the file has ${fileBytes} bytes)`,
    );
  }
  return Number(length);
}

/**
 * Parses and checks the JSON of a header.
 *
 * @param fileBytes size of the whole file, which the offsets must fill.
 * @throws CheckpointError naming the file, the tensor, what came and what is allowed.
 */
export function parseHeader(file: string, json: Uint8Array, fileBytes: number): SafetensorsHeader {
  const dataStart = 8 + json.byteLength;
  const { __metadata__: metadata, ...rest } = parseJsonObject(file, "header", json);
  const entries = Object.entries(rest).map(([name, value]) => parseEntry(file, name, value));
  checkCoverage(file, entries, fileBytes - dataStart);
  const tensors = new Map<string, TensorInfo>();
  const unsupported = new Map<string, string>();
  for (const { name, dtypeName, shape, begin, end } of entries) {
    const dtype = dtypeOfFile.get(dtypeName);
    if (dtype === undefined) unsupported.set(name, dtypeName);
    else {
      tensors.set(name, {
        name,
        dtype,
        shape,
        byteOffset: dataStart + begin,
        byteLength: end - begin,
      });
    }
  }
  return { metadata: parseMetadata(file, metadata), tensors, unsupported };
}

/** What a writer must know of a tensor before its data. */
export interface TensorSpec {
  readonly name: string;
  readonly dtype: DType;
  readonly shape: readonly number[];
}

/**
 * Lays tensors out and writes the header, length included. Wide elements come first, because
 * readers that view the data in place need it aligned; within a width the given order stays.
 */
export function formatHeader(
  file: string,
  specs: readonly TensorSpec[],
  metadata: Readonly<Record<string, string>>,
): { readonly header: Uint8Array; readonly tensors: ReadonlyMap<string, TensorInfo> } {
  const places: (TensorSpec & { begin: number; end: number })[] = [];
  const json: Record<string, unknown> = Object.create(null);
  if (Object.keys(metadata).length > 0) json.__metadata__ = parseMetadata(file, metadata);
  let at = 0;
  for (const spec of specs.toSorted((a, b) => dtypeBits[b.dtype] - dtypeBits[a.dtype])) {
    if (spec.name in json || spec.name === "__metadata__") {
      throw new CheckpointError(file, "name", excerpt(spec.name), "unique tensor names");
    }
    const bits = countElements(file, spec.name, spec.shape) * dtypeBits[spec.dtype];
    if (bits % 8 !== 0) {
      throw new CheckpointError(
        file,
        `shape of ${spec.name}`,
        excerpt(spec.shape),
        "an even number of e2m1 elements",
      );
    }
    places.push({ ...spec, begin: at, end: at + bits / 8 });
    json[spec.name] = {
      dtype: fileOfDtype.get(spec.dtype),
      shape: spec.shape,
      data_offsets: [at, at + bits / 8],
    };
    at += bits / 8;
  }
  const text = JSON.stringify(json);
  const encoded = new TextEncoder().encode(text);
  const header = new Uint8Array(8 + Math.ceil(encoded.length / 8) * 8).fill(0x20);
  if (header.length - 8 > maxHeaderBytes) {
    throw new CheckpointError(
      file,
      "header",
      `${header.length - 8} bytes`,
      `at most ${maxHeaderBytes}`,
    );
  }
  new DataView(header.buffer).setBigUint64(0, BigInt(header.length - 8), true);
  header.set(encoded, 8);
  const tensors = new Map<string, TensorInfo>();
  for (const { name, dtype, shape, begin, end } of places) {
    const byteOffset = header.length + begin;
    tensors.set(name, { name, dtype, shape, byteOffset, byteLength: end - begin });
  }
  return { header, tensors };
}
