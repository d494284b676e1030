// Flags that several of smallpond's commands share.

import { integer, text } from "../parse.ts";

/** A folder that may be named. */
export interface DataRootFlag {
  readonly kind: "parsed";
  readonly parse: (text: string) => string;
  readonly brief: string;
  readonly placeholder: "DIR";
  readonly optional: true;
}

/** A count that may be given. */
export interface CountFlag {
  readonly kind: "parsed";
  readonly parse: (text: string) => number;
  readonly brief: string;
  readonly placeholder: "N";
  readonly optional: true;
}

/** `--data-root`. */
export const dataRoot: DataRootFlag = {
  kind: "parsed",
  parse: text,
  brief: "Folder that holds the jobs (default: SP_DATA_ROOT, else ~/.cache/open-infra/smallpond)",
  placeholder: "DIR",
  optional: true,
};

/** A count from `low` on. */
export function countFlag(brief: string, high: number, low = 1): CountFlag {
  return { kind: "parsed", parse: integer(low, high), brief, placeholder: "N", optional: true };
}
