// What the eplb commands read: loads, placements, traces; and their errors in the user's terms.

import {
  type EplbShape,
  type LoadRows,
  loadTraceFrom,
  type Placement,
  placementFrom,
  type RecordedTrace,
} from "@open-infra/eplb";
import { InputError } from "@open-infra/errors";
import type { InputText } from "./json-input.ts";
import { jsonErrorOffset, parseJson } from "./json-input.ts";
import { UsageError } from "./parse.ts";

/** Values of `clusterFlags` in routes/eplb.ts. */
export interface ClusterFlags extends EplbShape {}

/** Library names that are flags of the commands. */
const flagNames =
  /\b(?:num(?:Replicas|Groups|Nodes|Gpus|Layers|Logical|Steps)|max(?:MovedSlots|BytesPerStep)|bytesPerExpert|layersPerStep|startAbove|stopBelow|intervalSteps|cooldownSteps|minGain|windowSteps|hotExperts|targetMaxOverMean|staging|policy|period|change|duration)\b/g;

function asFlag(name: string): string {
  return `--${name.replace(/[A-Z]/g, (letter) => `-${letter.toLowerCase()}`)}`;
}

/** Runs `work`; an input error names the flag, or `file` if it is about `parameter…` inside it. */
export function inTermsOf<T>(files: Readonly<Record<string, string>>, work: () => T): T {
  try {
    return work();
  } catch (error) {
    if (!(error instanceof InputError)) throw error;
    const inside = Object.keys(files).find((prefix) => error.parameter.startsWith(prefix));
    if (inside !== undefined) throw new UsageError(`${files[inside]}: ${error.message}`);
    throw new UsageError(error.message.replace(flagNames, asFlag));
  }
}

function isObject(value: unknown): value is Record<string, unknown> {
  return typeof value === "object" && value !== null && !Array.isArray(value);
}

/** Rows of loads from `[[…], …]`, one row `[…]`, or `{"weight": …}` of either. */
export function weightsFrom(input: InputText): LoadRows {
  const json = parseJson(input);
  const value = isObject(json) ? json.weight : json;
  if (!Array.isArray(value)) {
    const got = isObject(json) && json.weight === undefined ? "has no weight" : "holds no rows";
    throw new UsageError(`${input.name} ${got}; expected [[…], …], […] or {"weight": [[…], …]}`);
  }
  // Which numbers are wrong is the library's to say; it names row and column.
  const rows = value.some((row) => Array.isArray(row)) ? value : [value];
  return rows as unknown as LoadRows;
}

/** A placement from what `eplb rebalance --json` printed, or from rows of `phy2log` alone. */
export function placementOf(
  input: InputText,
  numLogical: number,
  allowMissing: boolean,
): Placement {
  const json = parseJson(input);
  const value = isObject(json) ? json.phy2log : json;
  const rows = Array.isArray(value) && value.every((slot) => typeof slot === "number");
  return inTermsOf({ phy2log: input.name }, () =>
    placementFrom((rows ? [value] : value) as number[][], numLogical, { allowMissing }),
  );
}

/** JSON lines: a step a line, after a line of sizes or without. */
function parseLines({ name, text }: InputText): unknown {
  const lines = text.split("\n");
  const steps: unknown[] = [];
  let header: Record<string, unknown> = {};
  lines.forEach((line, i) => {
    if (line.trim() === "") return;
    const value = parseJson({ name: `line ${i + 1} of ${name}`, text: line });
    if (steps.length === 0 && isObject(value)) header = value;
    else steps.push(value);
  });
  return { ...header, steps };
}

function isJsonLines(text: string): boolean {
  const end = text.indexOf("\n");
  if (end < 0 || text.slice(end).trim() === "") return false;
  return jsonErrorOffset(text.slice(0, end)) === undefined;
}

/** A load trace: a JSON document, or JSON lines. */
export function traceOf(input: InputText): RecordedTrace {
  const json = isJsonLines(input.text) ? parseLines(input) : parseJson(input);
  return inTermsOf(
    {
      steps: input.name,
      trace: input.name,
      numLayers: input.name,
      numLogical: input.name,
    },
    () => loadTraceFrom(json),
  );
}
