// What the page and its worker say to each other. Columns are transferred, never copied.

import type { TraceData } from "../timeline/trace-data.ts";

/** Where a trace comes from. */
export type TraceSpec =
  | { readonly kind: "file"; readonly file: File }
  /** An address of this origin. */
  | { readonly kind: "url"; readonly url: string }
  | { readonly kind: "example" };

export type ToWorker =
  /** A tolerant reader keeps what a damaged file has; the data's notes say what it left out. */
  | { readonly kind: "open"; readonly source: TraceSpec; readonly tolerant: boolean }
  | { readonly kind: "args"; readonly event: number };

/** How far loading has come. */
export interface LoadState {
  readonly phase: "reading" | "arranging";
  /** Bytes of the file as it lies there, compressed if it is. */
  readonly bytes: number;
  /** 0 where the length is not known. */
  readonly totalBytes: number;
}

export type FromWorker =
  | ({ readonly kind: "progress" } & LoadState)
  /** `file` is the trace itself where the page does not have it already. */
  | { readonly kind: "loaded"; readonly data: TraceData; readonly file?: Blob }
  /** `mendable`: a tolerant reader would get something out of it. */
  | { readonly kind: "failed"; readonly message: string; readonly mendable: boolean }
  | { readonly kind: "args"; readonly event: number; readonly text: string | undefined };
