// The sampling form: what each field is called, what it may hold, and how the filled form becomes
// fields of a request. An empty field is not sent, so the server's own default applies.

import type { DefaultSampling } from "../../api/wire.ts";

export type NumberField =
  | "temperature"
  | "topP"
  | "topK"
  | "minP"
  | "repetitionPenalty"
  | "maxTokens"
  | "seed";

/** The form as typed: text, so that half-typed numbers survive. */
export interface SamplingForm extends Readonly<Record<NumberField, string>> {
  /** One stop string a line; `\n`, `\t` and `\\` are escapes. */
  readonly stop: string;
}

export interface FieldRule {
  readonly name: NumberField;
  /** The request's own name for it. */
  readonly wireName: string;
  readonly label: string;
  readonly hint: string;
  readonly min: number;
  readonly max: number;
  readonly integer: boolean;
  readonly step: number;
}

/** Every number field, in the order the form shows them. */
export const fieldRules: readonly FieldRule[] = [
  {
    name: "temperature",
    wireName: "temperature",
    label: "Temperature",
    hint: "0 always takes the most likely token",
    min: 0,
    max: 2,
    integer: false,
    step: 0.1,
  },
  {
    name: "maxTokens",
    wireName: "max_tokens",
    label: "Max tokens",
    hint: "Stop after this many",
    min: 1,
    max: 1_000_000,
    integer: true,
    step: 16,
  },
  {
    name: "topP",
    wireName: "top_p",
    label: "Top p",
    hint: "Keep the smallest set with this probability",
    min: 0,
    max: 1,
    integer: false,
    step: 0.05,
  },
  {
    name: "topK",
    wireName: "top_k",
    label: "Top k",
    hint: "Keep the k most likely tokens; 0 keeps all",
    min: 0,
    max: 1_000_000,
    integer: true,
    step: 1,
  },
  {
    name: "minP",
    wireName: "min_p",
    label: "Min p",
    hint: "Drop tokens below this share of the best one",
    min: 0,
    max: 1,
    integer: false,
    step: 0.01,
  },
  {
    name: "repetitionPenalty",
    wireName: "repetition_penalty",
    label: "Repetition",
    hint: "Above 1 discourages tokens that already occurred",
    min: 0.01,
    max: 2,
    integer: false,
    step: 0.05,
  },
  {
    name: "seed",
    wireName: "seed",
    label: "Seed",
    hint: "The same seed gives the same text",
    min: 0,
    max: Number.MAX_SAFE_INTEGER,
    integer: true,
    step: 1,
  },
];

/** OpenAI's limit; the server enforces its own. */
const STOP_STRINGS_MAX = 4;

export const emptySampling: SamplingForm = {
  temperature: "",
  topP: "",
  topK: "",
  minP: "",
  repetitionPenalty: "",
  maxTokens: "",
  seed: "",
  stop: "",
};

export type FieldErrors = Readonly<Partial<Record<keyof SamplingForm, string>>>;

/** The request fields of a form, or what is wrong with which field. */
export type SamplingResult =
  | { readonly fields: Readonly<Record<string, unknown>> }
  | { readonly errors: FieldErrors };

/** Checks the form and turns it into request fields under their API names. */
export function samplingFields(form: SamplingForm): SamplingResult {
  const fields: Record<string, unknown> = {};
  const errors: Partial<Record<keyof SamplingForm, string>> = {};
  for (const rule of fieldRules) {
    const text = form[rule.name].trim();
    if (text === "") continue;
    const value = Number(text);
    const problem = problemOf(rule, value);
    if (problem === undefined) fields[rule.wireName] = value;
    else errors[rule.name] = problem;
  }
  const stop = stopStrings(form.stop);
  if (stop.length > STOP_STRINGS_MAX) errors.stop = `at most ${STOP_STRINGS_MAX} stop strings`;
  else if (stop.length > 0) fields.stop = stop;
  return Object.keys(errors).length > 0 ? { errors } : { fields };
}

function problemOf(rule: FieldRule, value: number): string | undefined {
  if (!Number.isFinite(value)) return "not a number";
  if (rule.integer && !Number.isSafeInteger(value)) return "whole numbers only";
  if (value < rule.min) return `at least ${rule.min}`;
  if (value > rule.max) return `at most ${rule.max}`;
  return undefined;
}

/** Lines to stop strings: blank lines are none, escapes stand for what cannot be typed. */
export function stopStrings(text: string): string[] {
  const escapes: Record<string, string> = { n: "\n", t: "\t", r: "\r", "\\": "\\" };
  return text
    .split("\n")
    .filter((line) => line !== "")
    .map((line) => line.replace(/\\([ntr\\])/g, (_, letter: string) => escapes[letter] ?? letter));
}

/** What an empty field means for this model, to show as its placeholder. */
export function placeholderOf(name: NumberField, defaults: DefaultSampling): string {
  if (name === "maxTokens") return "default";
  if (name === "seed") return "random";
  const neutral = { temperature: 1, topP: 1, topK: 0, minP: 0, repetitionPenalty: 1 };
  return String(defaults[name] ?? neutral[name]);
}
