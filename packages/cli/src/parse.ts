// Parsers of flag values. Each throws a sentence that names what came and what is allowed.

import { InfraError } from "@open-infra/errors";

/** The command line asked for something that cannot be; exit status 2. */
export class UsageError extends InfraError {
  constructor(message: string) {
    super("usage", message);
  }
}

/** A whole number within bounds. */
export function integer(low: number, high: number): (text: string) => number {
  return (text) => {
    const value = /^[+-]?\d+$/.test(text.trim()) ? Number(text) : Number.NaN;
    if (!(value >= low && value <= high)) {
      throw new UsageError(`'${text}' is not a whole number from ${low} to ${high}`);
    }
    return value;
  };
}

/** A finite number above 0. */
export function positiveNumber(text: string): number {
  const value = Number(text);
  if (text.trim() === "" || !(value > 0 && value < Number.POSITIVE_INFINITY)) {
    throw new UsageError(`'${text}' is not a positive number`);
  }
  return value;
}

/** Any text. */
export function text(value: string): string {
  return value;
}

/** `0,17,5` as token ids. */
export function tokenList(value: string): readonly number[] {
  const ids = value.split(/[\s,]+/).filter((part) => part !== "");
  if (ids.length === 0) throw new UsageError("no token ids given; expected e.g. 0,17,5");
  return ids.map((part) => {
    if (!/^\d+$/.test(part))
      throw new UsageError(`'${part}' is not a token id; expected e.g. 0,17,5`);
    return Number(part);
  });
}

/** A finite number from 0 on. */
export function nonNegativeNumber(text: string): number {
  const value = Number(text);
  if (text.trim() === "" || !(value >= 0 && value < Number.POSITIVE_INFINITY)) {
    throw new UsageError(`'${text}' is not a number from 0 on`);
  }
  return value;
}

/** `5%` or `5`, as 5. */
export function percentage(text: string): number {
  const value = /^\s*\d+(?:\.\d+)?\s*%?\s*$/.test(text) ? Number.parseFloat(text) : Number.NaN;
  if (!Number.isFinite(value)) {
    throw new UsageError(`'${text}' is not a percentage; expected e.g. 5%`);
  }
  return value;
}

/** `16,32,64` as whole numbers from 1. */
export function wholeList(value: string): readonly number[] {
  return value.split(",").map((part) => integer(1, Number.MAX_SAFE_INTEGER)(part));
}

const byteUnits: Readonly<Record<string, number>> = {
  "": 1,
  B: 1,
  KB: 1e3,
  MB: 1e6,
  GB: 1e9,
  TB: 1e12,
  KIB: 2 ** 10,
  MIB: 2 ** 20,
  GIB: 2 ** 30,
  TIB: 2 ** 40,
};

/** `80GB`, `1.5GiB` or `4096` as bytes; GB is 10⁹, GiB 2³⁰. */
export function byteCount(value: string): number {
  const match = /^(\d+(?:\.\d+)?(?:e\d+)?)\s*([kmgt]?i?b)?$/i.exec(value.trim());
  const factor = byteUnits[(match?.[2] ?? "").toUpperCase()];
  if (match === null || factor === undefined) {
    throw new UsageError(`'${value}' is not a number of bytes; expected e.g. 80GB or 1.5GiB`);
  }
  return Number(match[1]) * factor;
}
