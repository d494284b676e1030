// Orders of non-negative float32 numbers with the first index winning ties, without closures or
// garbage. A number and its index become one double: the bits of a non-negative float32 rise with
// its value, so bits × 2^20 + index is an exact integer below 2^52 whose order is (value, index).

const indexRange = 1 << 20;
const topBits = 0xffffffff;

const floatView = new Float32Array(1);
const bitsView = new Uint32Array(floatView.buffer);

/** A double that orders by (value ascending, index ascending). `value` is a float32, at least 0. */
export function ascendingKey(value: number, index: number): number {
  floatView[0] = value;
  return (bitsView[0] as number) * indexRange + index;
}

/** A double that orders by (value descending, index ascending). */
export function descendingKey(value: number, index: number): number {
  floatView[0] = value;
  return (topBits - (bitsView[0] as number)) * indexRange + index;
}

/** The index inside a key. */
export function keyIndex(key: number): number {
  return key % indexRange;
}

/**
 * Sorts the first `order.length` values in descending order, stable: `order` gets their indices,
 * `keys` is scratch of the same length.
 */
export function sortDescending(values: Float32Array, keys: Float64Array, order: Int32Array): void {
  const n = order.length;
  for (let i = 0; i < n; i++) {
    keys[i] = descendingKey(values[i] as number, i);
  }
  keys.sort(); // Numeric for typed arrays, and inside the engine: no comparator is called.
  for (let i = 0; i < n; i++) order[i] = (keys[i] as number) % indexRange;
}

/** Restores a min-heap of keys of which only the root may be too large. */
export function siftDown(heap: Float64Array, size: number): void {
  const moving = heap[0] as number;
  let at = 0;
  for (let child = 1; child < size; child = 2 * at + 1) {
    if (child + 1 < size && (heap[child + 1] as number) < (heap[child] as number)) child++;
    const key = heap[child] as number;
    if (key >= moving) break;
    heap[at] = key;
    at = child;
  }
  heap[at] = moving;
}
