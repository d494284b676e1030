// DuckDB's rows as Arrow tables, column by column: vectors of chunks go into one buffer an Arrow
// column, numbers by copying memory and text by encoding it, and never through row objects.

import {
  type DuckDBConnection,
  DuckDBDecimalType,
  DuckDBListType,
  DuckDBMapType,
  DuckDBStructType,
  type DuckDBType,
  DuckDBTypeId,
  type DuckDBVector,
} from "@duckdb/node-api";
import { type Data, Field, makeData, RecordBatch, Schema, Struct, Table } from "apache-arrow";
import { identifier } from "../dataset/sql-text.ts";
import { arrowable, arrowType } from "./arrow-types.ts";

/**
 * The memory of a DuckDB vector. The client keeps it in fields that its types call private; the
 * version in use is pinned, and what is missing here fails at once.
 */
interface RawVector {
  readonly items?: ArrayBufferView;
  readonly dataView?: DataView;
  readonly entryData?: BigUint64Array;
  readonly childData?: DuckDBVector;
  readonly listVector?: DuckDBVector;
  readonly entryVectors?: readonly DuckDBVector[];
  readonly validity?: { readonly data: BigUint64Array | null; readonly offset: number };
}

const raw = (vector: DuckDBVector): RawVector => vector as unknown as RawVector;

/** The bytes of a vector of fixed width. */
function bytesOf(vector: DuckDBVector): Uint8Array {
  const view = raw(vector).items ?? raw(vector).dataView;
  if (view === undefined) throw new TypeError(`no memory in a vector of ${String(vector.type)}`);
  return new Uint8Array(view.buffer, view.byteOffset, view.byteLength);
}

/** A buffer that doubles. */
class Bytes {
  data: Uint8Array = new Uint8Array(1024);
  length = 0;

  /** Room for so many bytes more; gives where they begin. */
  grow(bytes: number): number {
    const at = this.length;
    this.length += bytes;
    if (this.length > this.data.length) {
      const larger = new Uint8Array(Math.max(this.length, 2 * this.data.length));
      larger.set(this.data.subarray(0, at));
      this.data = larger;
    }
    return at;
  }

  finish(): Uint8Array {
    return this.data.slice(0, this.length);
  }
}

function allValid(rows: number): Bytes {
  const bytes = new Bytes();
  bytes.grow((rows + 7) >> 3);
  bytes.data.fill(255, 0, rows >> 3);
  if ((rows & 7) > 0) bytes.data[rows >> 3] = (1 << (rows & 7)) - 1;
  return bytes;
}

/** Rows of one column so far. */
abstract class Column {
  readonly type: DuckDBType;
  length = 0;
  nullCount = 0;
  /** Bits of the rows that are there; none while all are. */
  #valid: Bytes | undefined;

  constructor(type: DuckDBType) {
    this.type = type;
  }

  /** Rows `start` to `end` of a vector. */
  append(vector: DuckDBVector, start: number, end: number): void {
    const { data: words, offset } = raw(vector).validity ?? { data: null, offset: 0 };
    if (words !== null || this.#valid !== undefined) {
      this.#takeValidity(words, offset + start, end - start);
    }
    this.values(vector, start, end);
    this.length += end - start;
  }

  #takeValidity(words: BigUint64Array | null, from: number, rows: number): void {
    this.#valid ??= allValid(this.length);
    const needed = (this.length + rows + 7) >> 3;
    if (needed > this.#valid.length) this.#valid.grow(needed - this.#valid.length);
    const bits = this.#valid.data;
    // Bits of 64 at a time are bytes in the same order.
    const source = words && new Uint8Array(words.buffer, words.byteOffset, words.byteLength);
    for (let i = 0; i < rows; i++) {
      const bit = from + i;
      const at = this.length + i;
      if (source && (((source[bit >> 3] as number) >> (bit & 7)) & 1) === 0) this.nullCount++;
      else bits[at >> 3] = (bits[at >> 3] as number) | (1 << (at & 7));
    }
  }

  protected abstract values(vector: DuckDBVector, start: number, end: number): void;
  protected abstract buffers(): Record<string, unknown>;

  finish(): Data {
    return makeData({
      type: arrowType(this.type),
      length: this.length,
      nullCount: this.nullCount,
      ...(this.nullCount > 0 && { nullBitmap: this.#valid?.finish() }),
      ...this.buffers(),
    } as never) as Data;
  }
}

class FixedColumn extends Column {
  readonly #bytes = new Bytes();

  values(vector: DuckDBVector, start: number, end: number): void {
    const source = bytesOf(vector);
    const width = source.length / vector.itemCount;
    const at = this.#bytes.grow((end - start) * width);
    this.#bytes.data.set(source.subarray(start * width, end * width), at);
  }

  buffers(): Record<string, unknown> {
    const { buffer } = this.#bytes.finish();
    const { ArrayType } = arrowType(this.type) as unknown as {
      ArrayType: new (buffer: ArrayBufferLike) => ArrayBufferView;
    };
    return { data: new ArrayType(buffer) };
  }
}

class BoolColumn extends Column {
  readonly #bits = new Bytes();

  values(vector: DuckDBVector, start: number, end: number): void {
    const source = bytesOf(vector);
    const needed = (this.length + end - start + 7) >> 3;
    if (needed > this.#bits.length) this.#bits.grow(needed - this.#bits.length);
    const { data } = this.#bits;
    for (let i = start; i < end; i++) {
      const at = this.length + i - start;
      if (source[i]) data[at >> 3] = (data[at >> 3] as number) | (1 << (at & 7));
    }
  }

  buffers(): Record<string, unknown> {
    return { data: this.#bits.finish() };
  }
}

/** Numbers of 2 to 16 bytes, each widened to 16. */
class DecimalColumn extends Column {
  readonly #bytes = new Bytes();

  values(vector: DuckDBVector, start: number, end: number): void {
    const source = bytesOf(vector);
    const width = source.length / vector.itemCount;
    const at = this.#bytes.grow((end - start) * 16);
    for (let i = start; i < end; i++) {
      const to = at + (i - start) * 16;
      this.#bytes.data.set(source.subarray(i * width, (i + 1) * width), to);
      const negative = (source[(i + 1) * width - 1] as number) >= 128;
      this.#bytes.data.fill(negative ? 255 : 0, to + width, to + 16);
    }
  }

  buffers(): Record<string, unknown> {
    return { data: new Uint32Array(this.#bytes.finish().buffer) };
  }
}

const encoder = new TextEncoder();

/** Text and bytes. */
class TextColumn extends Column {
  readonly #bytes = new Bytes();
  readonly #offsets: number[] = [0];

  values(vector: DuckDBVector, start: number, end: number): void {
    for (let i = start; i < end; i++) {
      const item = vector.getItem(i) as string | { bytes: Uint8Array } | null;
      if (typeof item === "string") {
        const at = this.#bytes.grow(item.length * 3);
        const target = this.#bytes.data.subarray(at, this.#bytes.length);
        this.#bytes.length = at + encoder.encodeInto(item, target).written;
      } else if (item !== null) {
        const at = this.#bytes.grow(item.bytes.length);
        this.#bytes.data.set(item.bytes, at);
      }
      this.#offsets.push(this.#bytes.length);
    }
  }

  buffers(): Record<string, unknown> {
    return { valueOffsets: Int32Array.from(this.#offsets), data: this.#bytes.finish() };
  }
}

class ListColumn extends Column {
  readonly #child: Column;
  readonly #offsets: number[] = [0];

  constructor(type: DuckDBType, items: DuckDBType) {
    super(type);
    this.#child = columnOf(items);
  }

  override append(vector: DuckDBVector, start: number, end: number): void {
    // A map is a list inside.
    super.append(raw(vector).listVector ?? vector, start, end);
  }

  values(vector: DuckDBVector, start: number, end: number): void {
    const { entryData, childData, validity } = raw(vector);
    if (entryData === undefined || childData === undefined) throw new TypeError("no list's memory");
    const valid = validity as unknown as { itemValid(i: number): boolean };
    // Runs of items that lie one after another are taken at once.
    let from = 0;
    let to = 0;
    for (let i = start; i < end; i++) {
      const length = valid.itemValid(i) ? Number(entryData[2 * i + 1]) : 0;
      const offset = Number(entryData[2 * i]);
      if (length > 0 && offset !== to) {
        if (to > from) this.#child.append(childData, from, to);
        from = offset;
        to = offset;
      }
      to += length;
      this.#offsets.push(this.#child.length + to - from);
    }
    if (to > from) this.#child.append(childData, from, to);
  }

  buffers(): Record<string, unknown> {
    return { valueOffsets: Int32Array.from(this.#offsets), child: this.#child.finish() };
  }
}

class StructColumn extends Column {
  readonly #children: readonly Column[];

  constructor(type: DuckDBType, fields: readonly DuckDBType[]) {
    super(type);
    this.#children = fields.map(columnOf);
  }

  values(vector: DuckDBVector, start: number, end: number): void {
    const { entryVectors } = raw(vector);
    for (const [i, child] of this.#children.entries()) {
      child.append(entryVectors?.[i] as DuckDBVector, start, end);
    }
  }

  buffers(): Record<string, unknown> {
    return { children: this.#children.map((child) => child.finish()) };
  }
}

function columnOf(type: DuckDBType): Column {
  if (type instanceof DuckDBListType) return new ListColumn(type, type.valueType);
  if (type instanceof DuckDBMapType) {
    const entry = new DuckDBStructType(["key", "value"], [type.keyType, type.valueType]);
    return new ListColumn(type, entry);
  }
  if (type instanceof DuckDBStructType) return new StructColumn(type, type.entryTypes);
  if (type instanceof DuckDBDecimalType) return new DecimalColumn(type);
  if (type.typeId === DuckDBTypeId.BOOLEAN) return new BoolColumn(type);
  if (type.typeId === DuckDBTypeId.VARCHAR || type.typeId === DuckDBTypeId.BLOB) {
    return new TextColumn(type);
  }
  return new FixedColumn(type);
}

/** A query's columns as Arrow has them, and the query with the casts that this takes. */
async function arrowQuery(
  query: string,
  connection: DuckDBConnection,
): Promise<{ readonly query: string; readonly schema: Schema }> {
  const empty = await connection.run(`SELECT * FROM (${query}) LIMIT 0`);
  const names = empty.deduplicatedColumnNames();
  const casts = names.map((name, i) => {
    const type = empty.columnType(i);
    const wanted = arrowable(type);
    return wanted === String(type) ? "" : `CAST(${identifier(name)} AS ${wanted})`;
  });
  const list = casts
    .map((cast, i) => cast && `${cast} AS ${identifier(names[i] as string)}`)
    .filter(Boolean);
  const cast = list.length === 0 ? query : `SELECT * REPLACE (${list.join(", ")}) FROM (${query})`;
  const shape = list.length === 0 ? empty : await connection.run(`SELECT * FROM (${cast}) LIMIT 0`);
  const fields = names.map((name, i) => new Field(name, arrowType(shape.columnType(i)), true));
  return { query: cast, schema: new Schema(fields) };
}

/**
 * A query's rows as Arrow tables of `batchRows` rows each, the last one of what is left; of no
 * rows, nothing. Not of the first `skip`. Columns of types that Arrow lacks come as text.
 */
export async function* arrowBatches(
  query: string,
  batchRows: number,
  connection: DuckDBConnection,
  skip = 0,
): AsyncGenerator<Table> {
  const wanted = await arrowQuery(query, connection);
  const result = await connection.stream(wanted.query);
  const types = result.columnTypes();
  let columns = types.map(columnOf);
  let rows = 0;
  let left = skip;
  for (;;) {
    const chunk = await result.fetchChunk();
    if (chunk === null || chunk.rowCount === 0) break;
    const skipped = Math.min(left, chunk.rowCount);
    left -= skipped;
    for (let start = skipped; start < chunk.rowCount; ) {
      const end = Math.min(chunk.rowCount, start + batchRows - rows);
      for (const [i, column] of columns.entries()) {
        column.append(chunk.getColumnVector(i), start, end);
      }
      rows += end - start;
      start = end;
      if (rows < batchRows) continue;
      yield tableOf(wanted.schema, columns, rows);
      columns = types.map(columnOf);
      rows = 0;
    }
  }
  if (rows > 0) yield tableOf(wanted.schema, columns, rows);
}

/** All rows of a query as one Arrow table; of none, a table with the columns. */
export async function arrowTable(query: string, connection: DuckDBConnection): Promise<Table> {
  const batches: RecordBatch[] = [];
  for await (const table of arrowBatches(query, 2 ** 20, connection))
    batches.push(...table.batches);
  const schema = batches[0]?.schema ?? (await arrowQuery(query, connection)).schema;
  return new Table(schema, batches);
}

function tableOf(schema: Schema, columns: readonly Column[], length: number): Table {
  const children = columns.map((column) => column.finish());
  const data = makeData({ type: new Struct(schema.fields), length, nullCount: 0, children });
  return new Table(schema, [new RecordBatch(schema, data)]);
}
