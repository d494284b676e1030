// What the eplb commands read: loads, placements, traces; and their errors in the user's terms.

import {
  type EplbShape,
  type LoadRows,
  loadTraceFrom,
  type Placement,
  placementFrom,
  type RecordedTrace,
} from "@open-infra/eplb";
import { flagMap, inTermsOf } from "./flag-names.ts";
import type { InputText } from "./json-input.ts";
import { jsonErrorOffset, parseJson } from "./json-input.ts";
import { UsageError } from "./parse.ts";

/** Values of `clusterFlags` in routes/eplb.ts. */
export interface ClusterFlags extends Pick<EplbShape, "numReplicas" | "numGpus"> {
  readonly numGroups?: number;
  readonly numNodes?: number;
}

/** The library's options and the flags that set them. */
export const eplbFlags: ReadonlyMap<string, string> = flagMap(
  [
    ...["numReplicas", "numGroups", "numNodes", "numGpus", "numLayers", "numLogical", "numSteps"],
    ...["skew", "noise", "period", "change", "hotExperts", "duration", "at", "policy"],
    ...["maxMovedSlots", "maxMovedBytes", "bytesPerExpert", "maxBytesPerStep", "layersPerStep"],
    ...["startAbove", "stopBelow", "minGain", "moveSteps"],
  ],
  {
    targetMaxOverMean: "--target",
    tokensPerStep: "--tokens",
    intervalSteps: "--interval",
    windowSteps: "--window",
    timeConstantSteps: "--ema",
    cooldownSteps: "--cooldown",
  },
);

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
  const isRow = value.length > 0 && !value.some((row) => Array.isArray(row));
  const rows = isRow ? [value] : value;
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
  return inTermsOf({ flags: eplbFlags, files: { phy2log: input.name } }, () =>
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
  const { name } = input;
  const files = { steps: name, trace: name, numLayers: name, numLogical: name };
  return inTermsOf({ flags: eplbFlags, files }, () => loadTraceFrom(json));
}
