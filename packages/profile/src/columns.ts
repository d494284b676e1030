// Columns that grow by blocks: appending never copies what is there, and joining the blocks at the
// end frees each block as it is copied, so that the whole never exists twice.

/** Rows a block holds. */
export const BLOCK_ROWS: number = 1 << 15;
const SHIFT = 15;
const MASK = BLOCK_ROWS - 1;

/** Gives a buffer's memory back now, not when the garbage collector gets to it. */
export function release(array: NumberArray): void {
  (array.buffer as ArrayBuffer).transfer(0);
}

type NumberArray = Uint8Array | Int32Array | Uint32Array | Float64Array;

/** One growing column. `T` is the typed array of its blocks and of the joined column. */
export class Column<T extends NumberArray> {
  readonly #make: (length: number) => T;
  #blocks: T[] = [];
  /** The block that is being filled. */
  #last: T;

  constructor(make: (length: number) => T) {
    this.#make = make;
    this.#last = make(0);
  }

  /** Puts `value` at `row`, which is the number of rows so far. */
  append(row: number, value: number): void {
    if ((row & MASK) === 0) {
      this.#last = this.#make(BLOCK_ROWS);
      this.#blocks.push(this.#last);
    }
    this.#last[row & MASK] = value;
  }

  /** The value at `row`, which has been appended. */
  get(row: number): number {
    return (this.#blocks[row >>> SHIFT] as T)[row & MASK] as number;
  }

  set(row: number, value: number): void {
    (this.#blocks[row >>> SHIFT] as T)[row & MASK] = value;
  }

  /** All `rows` values in one array; the column is empty afterwards. */
  join(rows: number): T {
    const whole = this.#make(rows);
    this.#blocks.forEach((block, i) => {
      const start = i * BLOCK_ROWS;
      const part = rows - start < BLOCK_ROWS ? block.subarray(0, rows - start) : block;
      whole.set(part, start);
      release(block);
    });
    this.#blocks = [];
    this.#last = this.#make(0);
    return whole;
  }
}
