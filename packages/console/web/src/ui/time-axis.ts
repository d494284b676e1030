// Time as timelines write it: durations with a fitting unit, and ticks at round numbers. Pure
// numbers and texts; what draws them decides where.

/** Round steps in µs: 1, 2, 5 times a power of ten, from a nanosecond up. */
function roundStep(leastUs: number): number {
  const power = 10 ** Math.floor(Math.log10(leastUs));
  const scaled = leastUs / power;
  if (scaled <= 1) return power;
  if (scaled <= 2) return 2 * power;
  return scaled <= 5 ? 5 * power : 10 * power;
}

/** Ticks of an axis. */
export interface Ticks {
  readonly stepUs: number;
  /** Multiples of `stepUs`, ascending. */
  readonly timesUs: readonly number[];
}

/** Ticks at round times between two times, at least `minGapPx` apart. */
export function ticksBetween(
  startUs: number,
  endUs: number,
  widthPx: number,
  minGapPx: number,
): Ticks {
  const spanUs = endUs - startUs;
  if (!(spanUs > 0) || !(widthPx > 0)) return { stepUs: 1, timesUs: [] };
  const stepUs = roundStep((spanUs * minGapPx) / widthPx);
  const timesUs: number[] = [];
  const last = Math.floor(endUs / stepUs + 1e-9);
  for (let k = Math.ceil(startUs / stepUs - 1e-9); k <= last; k++) timesUs.push(k * stepUs);
  return { stepUs, timesUs };
}

const UNITS: readonly (readonly [number, string])[] = [
  [1e6, "s"],
  [1e3, "ms"],
  [1, "µs"],
  [1e-3, "ns"],
];

/** A tick's label: the unit follows the size of the time, the digits the step. */
export function formatTick(timeUs: number, stepUs: number): string {
  if (Math.abs(timeUs) < stepUs / 2) return "0";
  const size = Math.max(Math.abs(timeUs), stepUs);
  const [scale, unit] = UNITS.find(([least]) => size >= least * 0.9995) ?? [1e-3, "ns"];
  const digits = Math.max(0, Math.min(9, -Math.floor(Math.log10(stepUs / scale) + 1e-9)));
  return `${group((timeUs / scale).toFixed(digits))} ${unit}`;
}

/** A duration with about four digits: 812 ns, 41.27 µs, 3.604 ms, 129.0 ms, 1.250 s. */
export function formatUs(us: number): string {
  if (!Number.isFinite(us)) return "–";
  if (us === 0) return "0 µs";
  const size = Math.abs(us);
  const [scale, unit] = UNITS.find(([least]) => size >= least * 0.9995) ?? [1e-3, "ns"];
  const value = us / scale;
  const whole = Math.abs(value);
  // Nothing below a nanosecond: clocks do not know it.
  const most = Math.max(0, Math.round(Math.log10(scale)) + 3);
  const digits = Math.min(most, whole >= 1000 ? 0 : whole >= 100 ? 1 : whole >= 10 ? 2 : 3);
  return `${group(value.toFixed(digits))} ${unit}`;
}

/** Microseconds in full with separators, for figures that are compared: 113,440 µs. */
export function formatWholeUs(us: number): string {
  if (!Number.isFinite(us)) return "–";
  const text = us.toLocaleString("en-US", { maximumFractionDigits: us < 1000 ? 2 : 0 });
  return `${text} µs`;
}

/** Microseconds with all the digits a clock has: 1,298,525.125 µs. */
export function formatExactUs(us: number): string {
  return Number.isFinite(us)
    ? `${us.toLocaleString("en-US", { maximumFractionDigits: 3 })} µs`
    : "–";
}

function group(digits: string): string {
  const [whole = "", fraction] = digits.split(".");
  const grouped = whole.replace(/\B(?=(\d{3})+$)/g, ",");
  return fraction === undefined ? grouped : `${grouped}.${fraction}`;
}
