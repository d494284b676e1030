// Reads fields of a parsed JSON object with errors that name the file, the key, what came and what
// is allowed. It knows nothing of models; config.ts and generation-config.ts say what they want.

import { readFileSync } from "node:fs";
import { ConfigError } from "./errors.ts";

export type JsonObject = Readonly<Record<string, unknown>>;

export function isObject(value: unknown): value is JsonObject {
  return typeof value === "object" && value !== null && !Array.isArray(value);
}

/**
 * Parses a file that must hold a JSON object. @throws ConfigError if it is missing or malformed.
 */
export function readJsonObject(path: string, label: string): JsonObject {
  let text: string;
  try {
    text = readFileSync(path, "utf8");
  } catch (error) {
    throw new ConfigError(label, "the file", `cannot be read: ${(error as Error).message}`);
  }
  return parseJsonObject(text, label);
}

export function parseJsonObject(text: string, label: string): JsonObject {
  let value: unknown;
  try {
    value = JSON.parse(text);
  } catch (error) {
    throw new ConfigError(label, "the file", `is not valid JSON: ${(error as Error).message}`);
  }
  if (!isObject(value)) throw new ConfigError(label, "the file", "must hold a JSON object");
  return value;
}

function show(value: unknown): string {
  const text = JSON.stringify(value) ?? String(value);
  return text.length > 80 ? `${text.slice(0, 77)}…` : text;
}

/** A cursor over one object. A field that is null counts as absent. */
export class FieldReader {
  readonly #file: string;
  readonly #object: JsonObject;
  readonly #prefix: string;
  /** Keys that were asked for, so that what nobody knows can be reported. */
  readonly asked: Set<string> = new Set();

  constructor(file: string, object: JsonObject, prefix = "") {
    this.#file = file;
    this.#object = object;
    this.#prefix = prefix;
  }

  get keys(): readonly string[] {
    return Object.keys(this.#object);
  }

  /** The raw value; null and absent both give undefined. */
  raw(key: string): unknown {
    this.asked.add(key);
    return this.#object[key] ?? undefined;
  }

  /** True if the key is written at all, be it as null. */
  has(key: string): boolean {
    this.asked.add(key);
    return Object.hasOwn(this.#object, key);
  }

  /** An integer of at least `least`; required unless a fallback is given. */
  integer(key: string, least: number, fallback?: number): number {
    const value = this.raw(key) ?? fallback;
    if (value === undefined) this.missing(key, `an integer of at least ${least}`);
    if (!Number.isSafeInteger(value) || (value as number) < least) {
      this.fail(key, `is ${show(value)}; expected an integer of at least ${least}`);
    }
    return value as number;
  }

  optionalInteger(key: string, least: number): number | undefined {
    return this.raw(key) === undefined ? undefined : this.integer(key, least);
  }

  /** A finite number above `above`. */
  number(key: string, above: number, fallback?: number): number {
    const value = this.raw(key) ?? fallback;
    if (value === undefined) this.missing(key, `a number above ${above}`);
    if (typeof value !== "number" || !Number.isFinite(value) || value <= above) {
      this.fail(key, `is ${show(value)}; expected a number above ${above}`);
    }
    return value;
  }

  boolean(key: string, fallback: boolean): boolean {
    const value = this.raw(key) ?? fallback;
    if (typeof value !== "boolean") this.fail(key, `is ${show(value)}; expected true or false`);
    return value;
  }

  /** One of a few strings. */
  choice<T extends string>(key: string, allowed: readonly T[], fallback?: T, why = ""): T {
    const value = this.raw(key) ?? fallback;
    const list = allowed.map((name) => `"${name}"`).join(", ");
    if (value === undefined) this.missing(key, `one of ${list}`);
    if (!allowed.includes(value as T)) {
      this.fail(key, `is ${show(value)}, which is not supported${why}; allowed: ${list}`);
    }
    return value as T;
  }

  /** A nested object, or undefined. */
  object(key: string): FieldReader | undefined {
    const value = this.raw(key);
    if (value === undefined) return undefined;
    if (!isObject(value)) this.fail(key, `is ${show(value)}; expected an object or null`);
    return new FieldReader(this.#file, value, `${this.#prefix}${key}.`);
  }

  missing(key: string, wanted: string): never {
    this.fail(key, `is missing; expected ${wanted}`);
  }

  /** Raises the error for a key. */
  fail(key: string, problem: string): never {
    throw new ConfigError(this.#file, this.#prefix + key, problem);
  }

  /** `is <value>` for messages. */
  show(key: string): string {
    return `is ${show(this.#object[key])}`;
  }
}
