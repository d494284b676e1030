// Seeds: every random test prints its seed when it fails, and OPEN_INFRA_TEST_SEED replays it.

/** Pseudo-random numbers from a seed (mulberry32); good enough for test data. */
export interface Random {
  readonly seed: number;
  /** In [0, 1). */
  next(): number;
  /** An integer in [low, high). */
  int(low: number, high: number): number;
  /** Standard normal. */
  normal(): number;
  pick<T>(items: readonly T[]): T;
}

/** A generator that gives the same numbers for the same seed, everywhere. */
export function seededRandom(seed: number): Random {
  let state = seed >>> 0;
  const next = (): number => {
    state = (state + 0x6d2b79f5) >>> 0;
    let t = state;
    t = Math.imul(t ^ (t >>> 15), t | 1);
    t ^= t + Math.imul(t ^ (t >>> 7), t | 61);
    return ((t ^ (t >>> 14)) >>> 0) / 4294967296;
  };
  return {
    seed,
    next,
    int: (low, high) => low + Math.floor(next() * (high - low)),
    normal: () => Math.sqrt(-2 * Math.log(1 - next())) * Math.cos(2 * Math.PI * next()),
    pick: (items) => items[Math.floor(next() * items.length)] as (typeof items)[number],
  };
}

/**
 * The seed to use: OPEN_INFRA_TEST_SEED, or a fixed default so that runs repeat.
 *
 * @throws RangeError if the variable is set to anything but an integer from 0 to 2^32 - 1.
 */
export function testSeed(fallback = 20260223): number {
  const given = process.env.OPEN_INFRA_TEST_SEED;
  if (given === undefined || given === "") return fallback;
  const seed = Number(given);
  if (seed >>> 0 === seed) return seed;
  throw new RangeError(`OPEN_INFRA_TEST_SEED is ${given}; expected an integer from 0 to 2^32 - 1`);
}
