// Flags that several commands share, so that they are named and explained alike.

import { byteCount } from "./parse.ts";

/** `--json`. */
export const jsonFlag = {
  kind: "boolean",
  brief: "Print JSON",
  default: false,
  withNegated: false,
} as const;

/** A flag for an amount of memory or of traffic. */
export interface BytesFlag {
  readonly kind: "parsed";
  readonly parse: (text: string) => number;
  readonly brief: string;
  readonly placeholder: "BYTES";
  readonly optional: true;
}

/** An amount of memory or of traffic: `80GB`, `1.5GiB`, `4096`. */
export function bytesFlag(brief: string): BytesFlag {
  return { kind: "parsed", parse: byteCount, brief, placeholder: "BYTES", optional: true };
}
