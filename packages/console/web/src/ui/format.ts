// Numbers as the app writes them: few digits, fixed width where they change, units apart.

/** What stands for a number that is not known. */
export const NOT_KNOWN = "–";

/** A quantity with about three significant digits: 0.42, 7.31, 42.0, 137, 1,240. */
export function formatQuantity(value: number | null | undefined): string {
  if (value === null || value === undefined || !Number.isFinite(value)) return NOT_KNOWN;
  const size = Math.abs(value);
  const digits = size === 0 || size >= 100 ? 0 : size >= 10 ? 1 : 2;
  return value.toLocaleString("en-US", {
    minimumFractionDigits: digits,
    maximumFractionDigits: digits,
  });
}

/** A whole number with separators. */
export function formatCount(value: number | null | undefined): string {
  if (value === null || value === undefined || !Number.isFinite(value)) return NOT_KNOWN;
  return Math.round(value).toLocaleString("en-US");
}

/** A large count in K, M, B, T: 9.67 M, 671 B. */
export function formatLarge(value: number): string {
  const units = ["", " K", " M", " B", " T"];
  let scaled = value;
  let unit = 0;
  while (Math.abs(scaled) >= 999.5 && unit < units.length - 1) {
    scaled /= 1000;
    unit++;
  }
  const text = unit === 0 ? String(Math.round(scaled)) : String(Number(scaled.toPrecision(3)));
  return text + (units[unit] ?? "");
}

/** A share between 0 and 1 as a percentage with one decimal. */
export function formatPercent(share: number | null | undefined): string {
  if (share === null || share === undefined || !Number.isFinite(share)) return NOT_KNOWN;
  return `${(share * 100).toFixed(1)} %`;
}

/** Milliseconds below a second, seconds above. */
export function formatMs(ms: number | null | undefined): string {
  if (ms === null || ms === undefined || !Number.isFinite(ms)) return NOT_KNOWN;
  if (ms < 1000) return `${ms < 10 ? ms.toFixed(1) : Math.round(ms)} ms`;
  return `${(ms / 1000).toFixed(2)} s`;
}

/** How long something has been up: 42 s, 12 min, 3 h 05 min, 2 d 4 h. */
export function formatUptime(seconds: number): string {
  const minutes = Math.floor(seconds / 60);
  const hours = Math.floor(minutes / 60);
  if (minutes < 1) return `${Math.floor(seconds)} s`;
  if (hours < 1) return `${minutes} min`;
  if (hours < 24) return `${hours} h ${String(minutes % 60).padStart(2, "0")} min`;
  return `${Math.floor(hours / 24)} d ${hours % 24} h`;
}

/** A size in bytes with about three digits: 812 B, 3.13 MB, 1.20 GB. */
export function formatBytes(bytes: number): string {
  const units = ["B", "kB", "MB", "GB", "TB"];
  let scaled = bytes;
  let unit = 0;
  while (scaled >= 999.5 && unit < units.length - 1) {
    scaled /= 1000;
    unit++;
  }
  const digits = unit === 0 || scaled >= 99.95 ? 0 : scaled >= 9.995 ? 1 : 2;
  return `${scaled.toFixed(digits)} ${units[unit] ?? ""}`;
}
