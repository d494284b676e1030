// Flags that several commands share, so that they are named and explained alike.

/** `--json`. */
export const jsonFlag = {
  kind: "boolean",
  brief: "Print JSON",
  default: false,
  withNegated: false,
} as const;
