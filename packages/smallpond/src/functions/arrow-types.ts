// Which Arrow type a DuckDB type is, and the other way. Types that Arrow has no form for go as
// text, and fixed arrays as lists; `arrowable` says what to cast a column to before it is read.

import {
  DuckDBDecimalType,
  DuckDBListType,
  DuckDBMapType,
  DuckDBStructType,
  type DuckDBType,
  DuckDBTypeId,
} from "@duckdb/node-api";
import { InputError } from "@open-infra/errors";
import {
  Binary,
  Bool,
  type DataType,
  DateDay,
  Decimal,
  Field,
  Float32,
  Float64,
  Int8,
  Int16,
  Int32,
  Int64,
  List,
  Map_,
  Struct,
  TimeMicrosecond,
  TimestampMicrosecond,
  TimestampMillisecond,
  TimestampNanosecond,
  TimestampSecond,
  Type,
  Uint8,
  Uint16,
  Uint32,
  Uint64,
  Utf8,
} from "apache-arrow";
import { identifier } from "../dataset/sql-text.ts";

const flat: Partial<Record<DuckDBTypeId, () => DataType>> = {
  [DuckDBTypeId.BOOLEAN]: () => new Bool(),
  [DuckDBTypeId.TINYINT]: () => new Int8(),
  [DuckDBTypeId.SMALLINT]: () => new Int16(),
  [DuckDBTypeId.INTEGER]: () => new Int32(),
  [DuckDBTypeId.BIGINT]: () => new Int64(),
  [DuckDBTypeId.UTINYINT]: () => new Uint8(),
  [DuckDBTypeId.USMALLINT]: () => new Uint16(),
  [DuckDBTypeId.UINTEGER]: () => new Uint32(),
  [DuckDBTypeId.UBIGINT]: () => new Uint64(),
  [DuckDBTypeId.FLOAT]: () => new Float32(),
  [DuckDBTypeId.DOUBLE]: () => new Float64(),
  [DuckDBTypeId.VARCHAR]: () => new Utf8(),
  [DuckDBTypeId.BLOB]: () => new Binary(),
  [DuckDBTypeId.DATE]: () => new DateDay(),
  [DuckDBTypeId.TIME]: () => new TimeMicrosecond(),
  [DuckDBTypeId.TIMESTAMP]: () => new TimestampMicrosecond(),
  [DuckDBTypeId.TIMESTAMP_S]: () => new TimestampSecond(),
  [DuckDBTypeId.TIMESTAMP_MS]: () => new TimestampMillisecond(),
  [DuckDBTypeId.TIMESTAMP_NS]: () => new TimestampNanosecond(),
  [DuckDBTypeId.TIMESTAMP_TZ]: () => new TimestampMicrosecond("UTC"),
};

/** The SQL type with which Arrow can do: the same one, or the nearest. */
export function arrowable(type: DuckDBType): string {
  if (type instanceof DuckDBListType) return `${arrowable(type.valueType)}[]`;
  if (type.typeId === DuckDBTypeId.ARRAY) {
    return `${arrowable((type as unknown as { valueType: DuckDBType }).valueType)}[]`;
  }
  if (type instanceof DuckDBMapType) {
    return `MAP(${arrowable(type.keyType)}, ${arrowable(type.valueType)})`;
  }
  if (type instanceof DuckDBStructType) {
    const fields = type.entryNames.map(
      (name, i) => `${identifier(name)} ${arrowable(type.entryTypes[i] as DuckDBType)}`,
    );
    return `STRUCT(${fields.join(", ")})`;
  }
  if (type.typeId === DuckDBTypeId.HUGEINT) return "DECIMAL(38, 0)";
  if (type.typeId === DuckDBTypeId.SQLNULL) return "INTEGER";
  if (type instanceof DuckDBDecimalType || flat[type.typeId] !== undefined) return String(type);
  return "VARCHAR";
}

/** The Arrow type of an {@link arrowable} type. */
export function arrowType(type: DuckDBType): DataType {
  if (type instanceof DuckDBDecimalType) return new Decimal(type.scale, type.width, 128);
  if (type instanceof DuckDBListType) {
    return new List(new Field("item", arrowType(type.valueType), true));
  }
  if (type instanceof DuckDBStructType) return new Struct(structFields(type));
  if (type instanceof DuckDBMapType) {
    const key = new Field("key", arrowType(type.keyType), false);
    const value = new Field("value", arrowType(type.valueType), true);
    return new Map_(new Field("entries", new Struct([key, value]), false) as never);
  }
  const make = flat[type.typeId];
  if (make === undefined) throw new InputError("column type", String(type), "a type Arrow has");
  return make();
}

function structFields(type: DuckDBStructType): Field[] {
  return type.entryNames.map(
    (name, i) => new Field(name, arrowType(type.entryTypes[i] as DuckDBType), true),
  );
}

const timeUnits = ["TIMESTAMP_S", "TIMESTAMP_MS", "TIMESTAMP", "TIMESTAMP_NS"] as const;

const integers: Readonly<Record<number, string>> = {
  8: "TINYINT",
  16: "SMALLINT",
  32: "INTEGER",
  64: "BIGINT",
};

/** The DuckDB type, as SQL, of an Arrow type. @throws InputError that names the column */
export function duckTypeOf(type: DataType, column: string): string {
  const any = type as DataType & Record<string, unknown>;
  switch (type.typeId) {
    case Type.Null:
      return "INTEGER";
    case Type.Int:
      return `${any.isSigned ? "" : "U"}${integers[any.bitWidth as number]}`;
    case Type.Float:
      return any.precision === 2 ? "DOUBLE" : "FLOAT";
    case Type.Bool:
      return "BOOLEAN";
    case Type.Utf8:
    case Type.LargeUtf8:
      return "VARCHAR";
    case Type.Binary:
    case Type.LargeBinary:
    case Type.FixedSizeBinary:
      return "BLOB";
    case Type.Date:
      return "DATE";
    case Type.Time:
      return "TIME";
    case Type.Timestamp:
      // DuckDB knows time zones of microseconds only.
      return any.timezone ? "TIMESTAMPTZ" : (timeUnits[any.unit as number] as string);
    case Type.Decimal:
      return decimalType(any.precision as number, any.scale as number, column);
    case Type.Dictionary:
      return duckTypeOf(any.dictionary as DataType, column);
    default:
      return nestedTypeOf(type, column);
  }
}

function decimalType(precision: number, scale: number, column: string): string {
  if (precision <= 38 && scale >= 0) return `DECIMAL(${precision}, ${scale})`;
  throw new InputError(`column ${column}`, `Decimal(${precision}, ${scale})`, "at most 38 digits");
}

function nestedTypeOf(type: DataType, column: string): string {
  const fields = type.children ?? [];
  const inner = (i: number): string =>
    duckTypeOf((fields[i] as Field).type, `${column}.${(fields[i] as Field).name}`);
  switch (type.typeId) {
    case Type.List:
    case Type.FixedSizeList:
      return `${inner(0)}[]`;
    case Type.Struct: {
      const list = fields.map(({ name }, i) => `${identifier(name)} ${inner(i)}`);
      return `STRUCT(${list.join(", ")})`;
    }
    case Type.Map: {
      const [key, value] = (fields[0] as Field).type.children as Field[];
      const of = (field?: Field): string => duckTypeOf((field as Field).type, column);
      return `MAP(${of(key)}, ${of(value)})`;
    }
    default:
      throw new InputError(`column ${column}`, String(type), "an Arrow type that DuckDB has");
  }
}
