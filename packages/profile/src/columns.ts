// Columns that grow without copying what is there: rows are gathered in a small block, and full
// blocks move into chunks of their own pages, which the system gets back the moment they are joined
// into the finished column. Chunks from the general allocator would leave holes that nothing fits
// in, and a table would take twice its memory at the end.

/** Rows gathered before they move. */
const BLOCK_ROWS: number = 1 << 15;
const BLOCK_MASK = BLOCK_ROWS - 1;
/** Rows of a chunk, a whole number of blocks. */
const CHUNK_ROWS: number = 1 << 18;
const CHUNK_SHIFT = 18;
const CHUNK_MASK = CHUNK_ROWS - 1;

type NumberArray = Uint8Array | Int32Array | Uint32Array | Float64Array;

/** Float64Array and its like. */
interface ArrayType<T extends NumberArray> {
  readonly BYTES_PER_ELEMENT: number;
  new (length: number): T;
  new (buffer: ArrayBuffer): T;
}

/** Gives a buffer's memory back now, not when the garbage collector gets to it. */
export function release(array: NumberArray): void {
  (array.buffer as ArrayBuffer).transfer(0);
}

/** One growing column. */
export class Column<T extends NumberArray> {
  readonly #type: ArrayType<T>;
  #block: T;
  /** The row the block begins with. */
  #blockRow = 0;
  #chunks: T[] = [];

  constructor(type: ArrayType<T>) {
    this.#type = type;
    this.#block = new type(0);
  }

  /** Puts `value` at `row`, which is the number of rows so far. */
  append(row: number, value: number): void {
    const at = row & BLOCK_MASK;
    if (at === 0) this.#makeRoom(row);
    this.#block[at] = value;
  }

  /** `row` begins a block: the one before it, which is full, moves to its chunk. */
  #makeRoom(row: number): void {
    this.#blockRow = row;
    if (row === 0) {
      this.#block = new this.#type(BLOCK_ROWS);
      return;
    }
    const first = row - BLOCK_ROWS;
    if ((first & CHUNK_MASK) === 0) this.#chunks.push(this.#makeChunk());
    (this.#chunks[first >>> CHUNK_SHIFT] as T).set(this.#block, first & CHUNK_MASK);
  }

  /** Memory in pages of its own: engines take that of resizable buffers from the system itself. */
  #makeChunk(): T {
    const bytes = CHUNK_ROWS * this.#type.BYTES_PER_ELEMENT;
    return new this.#type(new ArrayBuffer(bytes, { maxByteLength: bytes }));
  }

  /** The value at `row`, which has been appended. */
  get(row: number): number {
    if (row >= this.#blockRow) return this.#block[row & BLOCK_MASK] as number;
    return (this.#chunks[row >>> CHUNK_SHIFT] as T)[row & CHUNK_MASK] as number;
  }

  /** Changes the value at `row`, which has been appended. */
  set(row: number, value: number): void {
    if (row >= this.#blockRow) this.#block[row & BLOCK_MASK] = value;
    else (this.#chunks[row >>> CHUNK_SHIFT] as T)[row & CHUNK_MASK] = value;
  }

  /** All `rows` values in one array; the column is empty afterwards. */
  join(rows: number): T {
    const whole = new this.#type(rows);
    const inChunks = this.#blockRow;
    this.#chunks.forEach((chunk, i) => {
      const start = i * CHUNK_ROWS;
      whole.set(chunk.subarray(0, Math.min(CHUNK_ROWS, inChunks - start)), start);
      release(chunk);
    });
    whole.set(this.#block.subarray(0, rows - inChunks), inChunks);
    release(this.#block);
    this.#chunks = [];
    this.#block = new this.#type(0);
    this.#blockRow = 0;
    return whole;
  }
}
