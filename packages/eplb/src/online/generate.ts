// Load traces made up from a seed: how popular experts are, and how that changes over time. They
// stand in for recordings when a controller's options are chosen, and in tests.

import { InputError } from "@open-infra/errors";
import { seededNormal, seededUniform, shuffle } from "./random.ts";
import { checkNumbers, checkWhole, type ExpertCount } from "./statistics.ts";
import type { LoadTrace } from "./trace.ts";

/** How unequal experts are. `zipf`: 1 ÷ rank^skew; `lognormal`: exp(skew × normal). */
export type Popularity = "uniform" | "zipf" | "lognormal";

/**
 * How popularity changes:
 * - `stationary`: not at all.
 * - `drift`: every `period` steps each expert's popularity changes by up to ±`change`.
 * - `burst`: every `period` steps `hotExperts` experts of each layer become `change` times as
 *   popular, for `duration` steps.
 * - `shift`: at step `at` the domain changes and popularity is drawn anew.
 * - `diurnal`: popularity swings between two draws and back within `period` steps.
 */
export type Scenario = "stationary" | "drift" | "burst" | "shift" | "diurnal";

/** Names of `Scenario`. */
export const scenarios: readonly Scenario[] = ["stationary", "drift", "burst", "shift", "diurnal"];

/** Names of `Popularity`. */
export const popularities: readonly Popularity[] = ["uniform", "zipf", "lognormal"];

/** A trace to be made up. */
export interface GenerateOptions extends ExpertCount {
  readonly numSteps: number;
  readonly seed: number;
  /** @default "stationary" */
  readonly scenario?: Scenario;
  /** @default "lognormal" */
  readonly popularity?: Popularity;
  /** Zipf's exponent or the lognormal's σ. @default 1 */
  readonly skew?: number;
  /** Tokens × top-k a step and layer, in the mean. @default 32768, 4096 tokens of top-8 */
  readonly tokensPerStep?: number;
  /**
   * Noise of a step's counts, in units of the noise that drawing tokens one by one has.
   * @default 1
   */
  readonly noise?: number;
  /** @default an eighth of the steps; diurnal: all of them */
  readonly period?: number;
  /** Drift: largest change, as a share. Burst: the factor. @default 0.05; burst: 8 */
  readonly change?: number;
  /** @default 4 */
  readonly hotExperts?: number;
  /** @default half of `period` */
  readonly duration?: number;
  /** @default the middle step */
  readonly at?: number;
}

type Resolved = Required<GenerateOptions>;

/** Counts are whole numbers, which a double has up to here. */
const highest = 2 ** 53;

function checkNumber(parameter: string, value: number): void {
  if (!(value >= 0 && value <= highest)) {
    throw new InputError(parameter, String(value), `a number from 0 to ${highest}`);
  }
}

function checkOneOf(parameter: string, value: string, allowed: readonly string[]): void {
  if (!allowed.includes(value)) throw new InputError(parameter, value, allowed.join(", "));
}

function resolve(options: GenerateOptions): Resolved {
  const { numSteps, scenario = "stationary" } = options;
  const eighth = Math.max(1, Math.floor(numSteps / 8));
  const period = options.period ?? (scenario === "diurnal" ? numSteps : eighth);
  const resolved: Resolved = {
    ...options,
    scenario,
    popularity: options.popularity ?? "lognormal",
    skew: options.skew ?? 1,
    tokensPerStep: options.tokensPerStep ?? 32_768,
    noise: options.noise ?? 1,
    period,
    change: options.change ?? (scenario === "burst" ? 8 : 0.05),
    hotExperts: options.hotExperts ?? Math.min(4, options.numLogical),
    duration: options.duration ?? Math.ceil(period / 2),
    at: options.at ?? Math.floor(numSteps / 2),
  };
  const counts = [
    "numLayers",
    "numLogical",
    "numSteps",
    "period",
    "hotExperts",
    "duration",
  ] as const;
  for (const name of counts) checkWhole(name, resolved[name], 1);
  for (const name of ["seed", "at"] as const) checkWhole(name, resolved[name], 0);
  for (const name of ["skew", "tokensPerStep", "noise", "change"] as const) {
    checkNumber(name, resolved[name]);
  }
  const { numLayers: layers, numLogical: experts } = resolved;
  checkNumbers("numLayers", { layers, experts });
  if (scenario === "shift" && resolved.at >= numSteps) {
    throw new InputError("at", String(resolved.at), `a step before numSteps, ${numSteps}`);
  }
  if (scenario === "drift" && resolved.change >= 1) {
    throw new InputError("change", String(resolved.change), "a share below 1 for drift");
  }
  if (resolved.hotExperts > resolved.numLogical) {
    const allowed = `at most the ${resolved.numLogical} experts`;
    throw new InputError("hotExperts", String(resolved.hotExperts), allowed);
  }
  checkOneOf("scenario", scenario, scenarios);
  checkOneOf("popularity", resolved.popularity, popularities);
  return resolved;
}

/**
 * Scales each layer's row to sum to 1.
 *
 * @throws InputError if experts differ by more than numbers can: `skew` is too large.
 */
function normalise(shares: Float64Array, { numLogical, skew }: Resolved): Float64Array {
  for (let begin = 0; begin < shares.length; begin += numLogical) {
    const row = shares.subarray(begin, begin + numLogical);
    const sum = row.reduce((total, share) => total + share, 0);
    if (!(sum > 0 && sum < Number.POSITIVE_INFINITY)) {
      throw new InputError("skew", String(skew), "less: the loads leave the range of numbers");
    }
    for (let i = 0; i < numLogical; i++) row[i] = (row[i] as number) / sum;
  }
  return shares;
}

/** One layer's popularity before it is shuffled over the experts. */
function popularityOf(rank: number, options: Resolved, normal: () => number): number {
  switch (options.popularity) {
    case "uniform":
      return 1;
    case "zipf":
      return (rank + 1) ** -options.skew;
    case "lognormal":
      return Math.exp(options.skew * normal());
  }
}

function drawShares(options: Resolved, uniform: () => number): Float64Array {
  const { numLayers, numLogical } = options;
  const normal = seededNormal(uniform);
  const shares = new Float64Array(numLayers * numLogical);
  for (let layer = 0; layer < numLayers; layer++) {
    const row = shares.subarray(layer * numLogical, (layer + 1) * numLogical);
    for (let rank = 0; rank < numLogical; rank++) row[rank] = popularityOf(rank, options, normal);
    shuffle(row, uniform);
  }
  return normalise(shares, options);
}

/** The shares of one walk, changed from step to step. */
class Shares {
  readonly #options: Resolved;
  readonly #uniform: () => number;
  #base: Float64Array;
  readonly #other: Float64Array;
  #current: Float64Array;

  constructor(options: Resolved, uniform: () => number) {
    this.#options = options;
    this.#uniform = uniform;
    this.#base = drawShares(options, uniform);
    this.#other = drawShares(options, uniform);
    this.#current = this.#base;
  }

  at(step: number): Float64Array {
    const { scenario, period, at } = this.#options;
    if (scenario === "shift" && step === at) this.#current = this.#other;
    if (scenario === "diurnal") this.#current = this.#swing(step);
    if (scenario === "drift" && step > 0 && step % period === 0) this.#drift();
    if (scenario === "burst") this.#burst(step);
    return this.#current;
  }

  #swing(step: number): Float64Array {
    const other = (1 - Math.cos((2 * Math.PI * step) / this.#options.period)) / 2;
    return this.#base.map((share, i) => (1 - other) * share + other * (this.#other[i] as number));
  }

  #drift(): void {
    const { change } = this.#options;
    const drifted = this.#base.map((share) => share * (1 + change * (2 * this.#uniform() - 1)));
    this.#base = normalise(drifted, this.#options);
    this.#current = this.#base;
  }

  #burst(step: number): void {
    const { period, duration, numLayers, numLogical, hotExperts, change } = this.#options;
    if (step % period === duration) this.#current = this.#base;
    if (step === 0 || step % period !== 0) return;
    const hot = this.#base.slice();
    for (let layer = 0; layer < numLayers; layer++) {
      for (let i = 0; i < hotExperts; i++) {
        const at = layer * numLogical + Math.floor(this.#uniform() * numLogical);
        hot[at] = (this.#base[at] as number) * change;
      }
    }
    this.#current = normalise(hot, this.#options);
  }
}

/** Size of the table noise is drawn from; to draw each number anew would take the most time. */
const noiseTable = 1 << 14;

/**
 * A load trace from a seed; nothing of it is kept, every walk makes it anew. Counts are whole.
 *
 * @throws InputError for options that cannot be used.
 */
export function generateLoads(options: GenerateOptions): LoadTrace {
  const resolved = resolve(options);
  const { numLayers, numLogical, numSteps, tokensPerStep, noise, seed } = resolved;
  return {
    numLayers,
    numLogical,
    numSteps,
    *[Symbol.iterator](): Generator<Float64Array, void, undefined> {
      const shares = new Shares(resolved, seededUniform(seed));
      const uniform = seededUniform(seed ^ 0x5bd1e995);
      const normals = Float64Array.from({ length: noiseTable }, seededNormal(uniform));
      const counts = new Float64Array(numLayers * numLogical);
      for (let step = 0; step < numSteps; step++) {
        const current = shares.at(step);
        for (let i = 0; i < counts.length; i++) {
          const mean = tokensPerStep * (current[i] as number);
          const normal = normals[Math.floor(uniform() * noiseTable)] as number;
          counts[i] = Math.max(0, Math.round(mean + noise * Math.sqrt(mean) * normal));
        }
        yield counts;
      }
    },
  };
}
