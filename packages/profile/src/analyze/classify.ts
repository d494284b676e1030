// Says what a kernel or span does, by its name: ordered rules, the first that matches wins. The
// rules of this project are in rules.ts; a user's rules go before them. It reads names only; what
// runs on a device is work.ts's business.

import { InputError } from "@open-infra/errors";

/** What a class counts as in overlap and breakdown. `other` is busy, but none of the three. */
export type KernelGroup = "computation" | "communication" | "memory" | "other";

/** Groups by number, as columns store them. */
export const kernelGroups: readonly KernelGroup[] = [
  "computation",
  "communication",
  "memory",
  "other",
];

/** One rule. */
export interface KernelRule {
  /** Tested against the event's name; a string is a substring of it. */
  readonly match: RegExp | string | ((name: string, category: string) => boolean);
  /** If given, the event's category must match too. */
  readonly category?: RegExp;
  /** Stable name of the class in results: `ep_dispatch`. */
  readonly class: string;
  readonly group: KernelGroup;
  /** The library or system the class belongs to: `DeepEP`. */
  readonly family: string;
  /** A kind within the class: `cached`. */
  readonly variant?: string;
}

/** What rules gave: rules of equal class, group, family and variant share one. */
export interface KernelClass {
  readonly name: string;
  readonly group: KernelGroup;
  readonly family: string;
  readonly variant: string;
}

/** Names to classes. */
export interface Classifier {
  /** Grows as names are met; indices stay. */
  readonly classes: readonly KernelClass[];
  /** Index into `classes`. */
  classOf(name: string, category: string): number;
}

/** What no rule knows: counted as computation, as HTA does. */
export const unclassified: KernelClass = {
  name: "unclassified",
  group: "computation",
  family: "other",
  variant: "",
};

function tester(rule: KernelRule): (name: string, category: string) => boolean {
  const { match, category: wanted } = rule;
  const byName =
    typeof match === "function"
      ? match
      : typeof match === "string"
        ? (name: string) => name.includes(match)
        : (name: string) => match.test(name);
  if (wanted === undefined) return byName;
  return (name, category) => wanted.test(category) && byName(name, category);
}

/**
 * A classifier of ordered rules.
 *
 * @throws InputError if a regular expression is sticky or global: its answers would depend on the
 * call before.
 */
export function createClassifier(rules: readonly KernelRule[]): Classifier {
  const classes: KernelClass[] = [unclassified];
  const known = new Map<string, number>([[keyOf(unclassified), 0]]);
  const tests = rules.map((rule, i) => {
    for (const [field, value] of Object.entries({ match: rule.match, category: rule.category })) {
      if (value instanceof RegExp && (value.global || value.sticky)) {
        throw new InputError(`rules[${i}].${field}`, String(value), "no flag g or y");
      }
    }
    const { class: name, group, family, variant = "" } = rule;
    const made: KernelClass = { name, group, family, variant };
    const id = known.get(keyOf(made)) ?? classes.push(made) - 1;
    known.set(keyOf(made), id);
    return { test: tester(rule), id };
  });
  return {
    classes,
    classOf: (name, category) => tests.find(({ test }) => test(name, category))?.id ?? 0,
  };
}

function keyOf({ name, group, family, variant }: KernelClass): string {
  return JSON.stringify([name, group, family, variant]);
}

const fields: ReadonlySet<string> = new Set([
  "match",
  "flags",
  "category",
  "class",
  "group",
  "family",
  "variant",
]);

function textField(rule: Record<string, unknown>, field: string, where: string): string {
  const value = rule[field];
  if (typeof value !== "string" || value === "") {
    const got = value === undefined ? "missing" : JSON.stringify(value);
    throw new InputError(`${where}.${field}`, got, "a text that is not empty");
  }
  return value;
}

function regexField(rule: Record<string, unknown>, field: string, where: string): RegExp {
  const source = textField(rule, field, where);
  const flags = rule.flags === undefined ? "" : textField(rule, "flags", where);
  try {
    if (/[^imsu]/.test(flags)) throw new InputError(`${where}.flags`, flags, "letters of imsu");
    return new RegExp(source, flags);
  } catch (error) {
    if (error instanceof InputError) throw error;
    const allowed = `a regular expression (${(error as Error).message})`;
    throw new InputError(`${where}.${field}`, JSON.stringify(source), allowed, { cause: error });
  }
}

/**
 * Rules from parsed JSON: an array of `{match, class, group, family?, variant?, category?, flags?}`
 * whose `match` and `category` are regular expressions as text.
 *
 * @throws InputError naming the rule and field that is wrong.
 */
export function parseRules(value: unknown, what = "rules"): readonly KernelRule[] {
  if (!Array.isArray(value)) {
    throw new InputError(what, value === null ? "null" : typeof value, "an array of rules");
  }
  return value.map((entry: unknown, i): KernelRule => {
    const where = `${what}[${i}]`;
    if (typeof entry !== "object" || entry === null || Array.isArray(entry)) {
      throw new InputError(where, JSON.stringify(entry), "an object");
    }
    const rule = entry as Record<string, unknown>;
    for (const field of Object.keys(rule)) {
      if (!fields.has(field)) {
        throw new InputError(`${where}.${field}`, "unknown", `one of ${[...fields].join(", ")}`);
      }
    }
    const group = textField(rule, "group", where) as KernelGroup;
    if (!kernelGroups.includes(group)) {
      throw new InputError(`${where}.group`, JSON.stringify(group), kernelGroups.join(", "));
    }
    return {
      match: regexField(rule, "match", where),
      class: textField(rule, "class", where),
      group,
      family: rule.family === undefined ? "user" : textField(rule, "family", where),
      ...(rule.variant !== undefined && { variant: textField(rule, "variant", where) }),
      ...(rule.category !== undefined && { category: regexField(rule, "category", where) }),
    };
  });
}
