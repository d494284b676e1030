// Single values of Arrow columns as the DuckDB client takes them, from Arrow's buffers, so that no
// digit of a decimal and no microsecond is lost on the way.

import {
  blobValue,
  DuckDBDateValue,
  DuckDBDecimalValue,
  DuckDBTimestampMillisecondsValue,
  DuckDBTimestampNanosecondsValue,
  DuckDBTimestampSecondsValue,
  DuckDBTimestampTZValue,
  DuckDBTimestampValue,
  DuckDBTimeValue,
  type DuckDBValue,
  listValue,
  mapValue,
  structValue,
} from "@duckdb/node-api";
import { InputError } from "@open-infra/errors";
import { type Data, Type } from "apache-arrow";

/** The value of a row, or NULL. */
type Read = (row: number) => DuckDBValue;

/** How to read the rows of a column. @throws InputError for a type DuckDB lacks */
export function arrowValues(data: Data): Read {
  const read = readerOf(data);
  return (row) => (data.getValid(row) ? read(row) : null);
}

const dayMs = 86_400_000n;

function readerOf(data: Data): Read {
  const values = data.values as ArrayLike<number>;
  const any = data.type as typeof data.type & Record<string, unknown>;
  switch (data.type.typeId) {
    case Type.Null:
      return () => null;
    case Type.Int:
      return (row) => values[row] as number;
    case Type.Float:
      return any.precision === 0
        ? (row) => halfOf(values[row] as number)
        : (row) => values[row] as number;
    case Type.Bool:
      return (row) => {
        const bit = data.offset + row;
        return (((values[bit >> 3] as number) >> (bit & 7)) & 1) === 1;
      };
    case Type.Utf8:
    case Type.LargeUtf8:
      return textReader(data);
    case Type.Binary:
    case Type.LargeBinary:
      return (row) => blobValue(slice(data, row));
    case Type.FixedSizeBinary: {
      const width = any.byteWidth as number;
      const bytes = data.values as Uint8Array;
      return (row) => blobValue(bytes.slice(row * width, (row + 1) * width));
    }
    case Type.Date:
    case Type.Time:
    case Type.Timestamp:
      return timeReader(data, any.unit as number, any.timezone != null);
    case Type.Decimal:
      return decimalReader(data, any.precision as number, any.scale as number);
    default:
      return nestedReader(data);
  }
}

function nestedReader(data: Data): Read {
  const any = data.type as typeof data.type & Record<string, unknown>;
  const offsets = data.valueOffsets as ArrayLike<number> | undefined;
  switch (data.type.typeId) {
    case Type.Dictionary: {
      const chunks = data.dictionary?.data ?? [];
      const readers = chunks.map(arrowValues);
      const keys = data.values as ArrayLike<number | bigint>;
      return (row) => {
        let key = Number(keys[row]);
        let i = 0;
        while (key >= (chunks[i]?.length ?? Number.POSITIVE_INFINITY))
          key -= chunks[i++]?.length ?? 0;
        return readers[i]?.(key) ?? null;
      };
    }
    case Type.List: {
      const read = arrowValues(data.children[0] as Data);
      return (row) => listValue(span(offsets?.[row], offsets?.[row + 1], read));
    }
    case Type.FixedSizeList: {
      const size = any.listSize as number;
      const read = arrowValues(data.children[0] as Data);
      return (row) => listValue(span(row * size, (row + 1) * size, read));
    }
    case Type.Struct: {
      const names = (data.type.children ?? []).map(({ name }) => name);
      const readers = data.children.map(arrowValues);
      return (row) =>
        structValue(Object.fromEntries(names.map((name, i) => [name, readers[i]?.(row) ?? null])));
    }
    case Type.Map: {
      const [keys, items] = (data.children[0] as Data).children.map(arrowValues) as [Read, Read];
      return (row) =>
        mapValue(
          span(offsets?.[row], offsets?.[row + 1], (at) => at as never).map((at) => ({
            key: keys(at as number),
            value: items(at as number),
          })),
        );
    }
    default:
      throw new InputError("Arrow column", String(data.type), "a type that DuckDB has");
  }
}

function span(from: number | undefined, to: number | undefined, read: Read): DuckDBValue[] {
  const items: DuckDBValue[] = [];
  for (let at = from ?? 0; at < (to ?? 0); at++) items.push(read(at));
  return items;
}

/** Node's own decoding of a range takes half of what a TextDecoder takes a short text. */
function textReader(data: Data): Read {
  const { buffer, byteOffset, byteLength } = data.values as Uint8Array;
  const bytes = Buffer.from(buffer, byteOffset, byteLength);
  const offsets = data.valueOffsets as unknown as ArrayLike<number | bigint>;
  return (row) => bytes.toString("utf8", Number(offsets[row]), Number(offsets[row + 1]));
}

function slice(data: Data, row: number): Uint8Array {
  const offsets = data.valueOffsets as unknown as ArrayLike<number | bigint>;
  return (data.values as Uint8Array).subarray(Number(offsets[row]), Number(offsets[row + 1]));
}

/** 64-bit whole numbers, which some builders keep as pairs of 32. */
function longs(data: Data): (row: number) => bigint {
  const values = data.values as BigInt64Array | Int32Array;
  if (values instanceof BigInt64Array) return (row) => values[row] as bigint;
  const view = new DataView(values.buffer, values.byteOffset, values.byteLength);
  return (row) => view.getBigInt64(row * 8, true);
}

function timeReader(data: Data, unit: number, zoned: boolean): Read {
  if (data.type.typeId === Type.Date) {
    const days = data.values as Int32Array;
    if (unit === 0) return (row) => new DuckDBDateValue(days[row] as number);
    const milliseconds = longs(data);
    return (row) => {
      const ms = milliseconds(row);
      // Before 1970, the day that began earlier.
      return new DuckDBDateValue(Number((ms - (((ms % dayMs) + dayMs) % dayMs)) / dayMs));
    };
  }
  const short = data.values as Int32Array;
  const is32 = data.type.typeId === Type.Time && unit < 2;
  const value = is32 ? (row: number) => BigInt(short[row] as number) : longs(data);
  const micros = (row: number): bigint => {
    if (unit === 3) return value(row) / 1000n;
    return value(row) * ([1_000_000n, 1000n, 1n][unit] as bigint);
  };
  if (data.type.typeId === Type.Time) return (row) => new DuckDBTimeValue(micros(row));
  if (zoned) return (row) => new DuckDBTimestampTZValue(micros(row));
  if (unit === 0) return (row) => new DuckDBTimestampSecondsValue(value(row));
  if (unit === 1) return (row) => new DuckDBTimestampMillisecondsValue(value(row));
  if (unit === 2) return (row) => new DuckDBTimestampValue(value(row));
  return (row) => new DuckDBTimestampNanosecondsValue(value(row));
}

function decimalReader(data: Data, precision: number, scale: number): Read {
  const { buffer, byteOffset, byteLength } = data.values as Uint32Array;
  const view = new DataView(buffer, byteOffset, byteLength);
  const bytes = (data.type as unknown as { bitWidth: number }).bitWidth / 8;
  return (row) => {
    const low = view.getBigUint64(row * bytes, true);
    const high = view.getBigInt64(row * bytes + 8, true);
    return new DuckDBDecimalValue((high << 64n) | low, precision, scale);
  };
}

/** A half float's number from its bits. */
function halfOf(bits: number): number {
  const sign = bits & 0x8000 ? -1 : 1;
  const exponent = (bits >> 10) & 31;
  const fraction = bits & 0x3ff;
  if (exponent === 0) return sign * fraction * 2 ** -24;
  if (exponent === 31) return fraction === 0 ? sign * Number.POSITIVE_INFINITY : Number.NaN;
  return sign * (1 + fraction / 1024) * 2 ** (exponent - 15);
}
