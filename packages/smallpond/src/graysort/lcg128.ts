// The 128-bit linear congruential generator of the sort benchmark's records, with jumps, so that
// any range of records can be made without those before it. Only the numbers; what a record makes
// of them is records.ts.

/** L'Ecuyer's multiplier for modulus 2^128 (Mathematics of Computation 68, 1999, pp. 249-260). */
export const multiplier: bigint = 0x2360ed051fc65da44385df649fccf645n;
/** "JimGrayRIP" and more; odd, as it must be. */
export const increment: bigint = 0x4a696d47726179524950202020202001n;

const mask128 = (1n << 128n) - 1n;

/** The state after so many steps from 0. */
export function stateAfter(steps: bigint): bigint {
  let state = 0n;
  let [factor, term] = [multiplier, increment];
  for (let left = steps; left > 0n; left >>= 1n) {
    if (left & 1n) state = (factor * state + term) & mask128;
    // Twice as many steps at once.
    term = ((factor + 1n) * term) & mask128;
    factor = (factor * factor) & mask128;
  }
  return state;
}

const radix = 2 ** 24;

/** A number's six limbs of 24 bits, the lowest first; the last one has 8. */
export function limbsOf(value: bigint): [number, number, number, number, number, number] {
  const limb = (i: bigint): number => Number((value >> (24n * i)) & 0xffffffn);
  return [limb(0n), limb(1n), limb(2n), limb(3n), limb(4n), limb(5n)];
}

const [a0, a1, a2, a3, a4, a5] = limbsOf(multiplier);
const [c0, c1, c2, c3, c4, c5] = limbsOf(increment);

/**
 * The generator as six limbs of 24 bits in doubles: a product has 48 bits and a sum of six of them
 * with carry less than 2^51, so every step is exact, and none allocates as BigInt does.
 */
export class Lcg128 {
  /** Bits 0-23. */
  x0 = 0;
  x1 = 0;
  x2 = 0;
  x3 = 0;
  x4 = 0;
  /** Bits 120-127. */
  x5 = 0;

  /** @param steps Steps done; the next number is the one after. */
  constructor(steps: bigint) {
    [this.x0, this.x1, this.x2, this.x3, this.x4, this.x5] = limbsOf(stateAfter(steps));
  }

  next(): void {
    const { x0, x1, x2, x3, x4, x5 } = this;
    let sum = x0 * a0 + c0;
    let carry = Math.floor(sum / radix);
    this.x0 = sum - carry * radix;
    sum = x0 * a1 + x1 * a0 + c1 + carry;
    carry = Math.floor(sum / radix);
    this.x1 = sum - carry * radix;
    sum = x0 * a2 + x1 * a1 + x2 * a0 + c2 + carry;
    carry = Math.floor(sum / radix);
    this.x2 = sum - carry * radix;
    sum = x0 * a3 + x1 * a2 + x2 * a1 + x3 * a0 + c3 + carry;
    carry = Math.floor(sum / radix);
    this.x3 = sum - carry * radix;
    sum = x0 * a4 + x1 * a3 + x2 * a2 + x3 * a1 + x4 * a0 + c4 + carry;
    carry = Math.floor(sum / radix);
    this.x4 = sum - carry * radix;
    sum = x0 * a5 + x1 * a4 + x2 * a3 + x3 * a2 + x4 * a1 + x5 * a0 + c5 + carry;
    this.x5 = sum % 256;
  }
}
