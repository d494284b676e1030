// What a JSON file of the user's is: loads as `eplb rebalance` takes them, or what it printed,
// which is the placement in use. Numbers inside are checked by the package when they are used.

import { InputError } from "@open-infra/errors";

/** Rows of numbers, and what they are. */
export interface FileContent {
  readonly loads?: readonly (readonly number[])[];
  readonly placement?: {
    readonly phy2log: readonly (readonly number[])[];
    /** The cluster, where the file names it. */
    readonly numReplicas?: number;
    readonly numGroups?: number;
    readonly numNodes?: number;
    readonly numGpus?: number;
  };
}

type Rows = readonly (readonly number[])[];

function isObject(value: unknown): value is Readonly<Record<string, unknown>> {
  return typeof value === "object" && value !== null && !Array.isArray(value);
}

/** One row alone stands for one layer. */
function rowsOf(name: string, value: unknown): Rows {
  if (Array.isArray(value) && value.length > 0) {
    return (value.some(Array.isArray) ? value : [value]) as unknown as Rows;
  }
  const got = Array.isArray(value) ? "an empty array" : value === null ? "null" : typeof value;
  throw new InputError(name, got, "rows of numbers, one a layer");
}

const sizes = ["numReplicas", "numGroups", "numNodes", "numGpus"] as const;

function placementOf(value: Readonly<Record<string, unknown>>): FileContent["placement"] {
  const phy2log = rowsOf("phy2log", value.phy2log);
  const named = sizes.flatMap((size) =>
    typeof value[size] === "number" ? [[size, value[size]] as const] : [],
  );
  return { phy2log, ...Object.fromEntries(named) };
}

/**
 * Reads a file's text: rows, a row, `{"weight": …}`, or `{"phy2log": …}` as the command prints it.
 * With `asPlacement` bare rows are slots instead of loads.
 *
 * @throws InputError if it is no JSON, or none of these.
 */
export function readContent(name: string, text: string, asPlacement = false): FileContent {
  let json: unknown;
  try {
    json = JSON.parse(text.replace(/^\uFEFF/, ""));
  } catch (error) {
    throw new InputError(name, `not JSON: ${(error as Error).message}`, "a JSON document");
  }
  if (Array.isArray(json)) {
    const rows = rowsOf(name, json);
    return asPlacement ? { placement: { phy2log: rows } } : { loads: rows };
  }
  if (isObject(json)) {
    const { weight, phy2log } = json;
    if (weight !== undefined || phy2log !== undefined) {
      return {
        ...(weight !== undefined && { loads: rowsOf("weight", weight) }),
        ...(phy2log !== undefined && { placement: placementOf(json) as object }),
      } as FileContent;
    }
  }
  const got = isObject(json)
    ? `an object with ${Object.keys(json).join(", ") || "nothing"}`
    : typeof json;
  throw new InputError(
    name,
    got,
    'loads as [[…], …] or {"weight": [[…], …]}, or the JSON of eplb rebalance',
  );
}
