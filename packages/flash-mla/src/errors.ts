// Errors only attention raises. Wrong shapes and dtypes use the shared ones of @open-infra/tensor.

import { InfraError } from "@open-infra/tensor";

/** A number or the contents of an index tensor is outside what the operation takes. */
export class ArgumentError extends InfraError {
  readonly argument: string;

  constructor(operation: string, argument: string, got: string, allowed: string) {
    super("argument", `${operation}: ${argument} is ${got}; expected ${allowed}`);
    this.argument = argument;
  }
}

/** A block table names a block outside the cache inside the range a request uses. */
export class BlockTableError extends InfraError {
  readonly request: number;
  readonly entry: number;

  constructor(operation: string, request: number, entry: number, got: number, numBlocks: number) {
    super(
      "block-table",
      `${operation}: blockTable[${request}, ${entry}] is ${got}; ` +
        `expected a block in 0..${numBlocks - 1}`,
    );
    this.request = request;
    this.entry = entry;
  }
}

/** Scheduling metadata was filled for another shape or other sequence lengths; make a new one. */
export class StaleMetadataError extends InfraError {
  constructor(operation: string, what: string, was: string | number, now: string | number) {
    super(
      "stale-metadata",
      `${operation}: schedMeta was filled for ${what} = ${was}, this call has ${now}; ` +
        "call getMlaMetadata() again for every change of shape or sequence lengths",
    );
  }
}
