// Errors of the libraries in the words of the command line: the flag that was typed instead of the
// option it became, and the file in which a wrong value stands.

import { InputError } from "@open-infra/errors";
import { UsageError } from "./parse.ts";

/** What the caller of a command wrote where the library has its own names. */
export interface Terms {
  /** Flags by the library's option: `["numRanks", "--num-ranks"]`. */
  readonly flags: ReadonlyMap<string, string>;
  /** Files by the beginning of the parameters that are read from them. */
  readonly files?: Readonly<Record<string, string>>;
}

/** `numRanks` as `--num-ranks`. */
export function flagOf(name: string): string {
  return `--${name.replace(/[A-Z]/g, (letter) => `-${letter.toLowerCase()}`)}`;
}

/** A map for `Terms`: flags that are named as their options, and those that are not. */
export function flagMap(
  alike: readonly string[],
  others: Readonly<Record<string, string>> = {},
): ReadonlyMap<string, string> {
  return new Map([
    ...alike.map((name) => [name, flagOf(name)] as const),
    ...Object.entries(others),
  ]);
}

/** `numRanks`, `times.W`, and the place in what one flag sets: `times.W[3]`, `latency(0, 1)`. */
const optionNames = /\b([a-z]+(?:\.[A-Za-z]+|(?:[A-Z][a-z]+)+))(?:\[\d+\]|\(\d+, \d+\))?/g;

/**
 * A sentence with flags instead of the options in it. Plain words (`at`, `noise`) stay: they may be
 * meant as words.
 */
export function withFlags(sentence: string, flags: Terms["flags"]): string {
  return sentence.replace(optionNames, (whole, name: string) => flags.get(name) ?? whole);
}

/** Runs `work`; its input errors become usage errors that name flags and files. */
export function inTermsOf<T>({ flags, files = {} }: Terms, work: () => T): T {
  try {
    return work();
  } catch (error) {
    if (!(error instanceof InputError)) throw error;
    const { parameter, got, allowed, message } = error;
    const inside = Object.keys(files).find((prefix) => parameter.startsWith(prefix));
    if (inside !== undefined) throw new UsageError(`${files[inside]}: ${message}`);
    const what = flags.get(parameter) ?? withFlags(parameter, flags);
    throw new UsageError(`${what} is ${got}; expected ${withFlags(allowed, flags)}`);
  }
}
