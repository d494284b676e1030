// How large a trace may be before the reader gives up: a damaged or hostile file ends in a typed
// error that names the limit, not in a process without memory.

import { InputError } from "@open-infra/errors";

/** All are counts or bytes; raise one when a real trace needs it. */
export interface TraceLimits {
  /** Rows of the table. @default 200_000_000 */
  readonly maxEvents?: number;
  /** Lanes: pairs of pid and tid, those of metadata included. @default 1_000_000 */
  readonly maxLanes?: number;
  /** Different names, categories and flow ids. @default 32_000_000 */
  readonly maxStrings?: number;
  /** UTF-8 bytes of them, and bytes of kept args. @default 2_000_000_000 */
  readonly maxTextBytes?: number;
  /** One event, or one other value of the top level, as JSON text. @default 67_108_864 */
  readonly maxValueBytes?: number;
  /** Arrays and objects within each other. @default 512 */
  readonly maxDepth?: number;
}

const defaults: Required<TraceLimits> = {
  maxEvents: 200_000_000,
  maxLanes: 1_000_000,
  maxStrings: 32_000_000,
  maxTextBytes: 2_000_000_000,
  maxValueBytes: 64 * 1024 * 1024,
  maxDepth: 512,
};

/** Limits with their defaults filled in. @throws InputError for one that is no positive integer */
export function resolveLimits(limits: TraceLimits = {}): Required<TraceLimits> {
  const resolved = { ...defaults, ...limits };
  for (const [name, value] of Object.entries(resolved)) {
    if (!(Number.isSafeInteger(value) && value > 0)) {
      throw new InputError(`limits.${name}`, String(value), "a positive integer");
    }
  }
  return resolved;
}

/** A limit was met; the reader says where. */
export class LimitReached extends Error {
  readonly limit: keyof TraceLimits;
  readonly value: number;

  constructor(limit: keyof TraceLimits, value: number, what: string) {
    super(`more than ${value} ${what} (limits.${limit})`);
    this.limit = limit;
    this.value = value;
  }
}
