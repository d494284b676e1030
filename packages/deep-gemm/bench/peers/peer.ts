// What a peer is to the bench. Adapters implement it; worker.ts drives one in a process of its own.

import type { PeerDType, Problem } from "./problem.ts";

/** A way to compute a problem: a layout of the weights. */
export interface Variant {
  readonly name: string;
  /** One call with the matrix B number `copy`, complete on return or when resolved. */
  call(copy: number): void | Promise<void>;
}

/** A problem with its matrices in place. */
export interface Prepared {
  readonly variants: readonly Variant[];
  /** What the last call wrote, as {@link checkedValues} takes it. */
  output(): Uint16Array | Float32Array | Promise<Uint16Array | Float32Array>;
  free(): void;
}

/** An opened library. */
export interface Peer {
  /** With its version, as the library says it. */
  readonly version: string;
  prepare(problem: Problem): Prepared | Promise<Prepared>;
}

/** A library that may be there. */
export interface PeerAdapter {
  readonly name: string;
  readonly dtypes: readonly PeerDType[];
  /** How to install it: a command. */
  readonly install: string;
  /** Most multiply-adds of a problem that are worth waiting for. @default no limit */
  readonly maxMultiplyAdds?: number;
  /** @throws anything if the library is not there; the message is shown. */
  open(threads: number): Peer | Promise<Peer>;
}

/** Times of a burst in microseconds, and which variant was measured. */
export interface Burst {
  readonly variant: string;
  readonly samples: readonly number[];
}

/** From the bench to a peer's process. */
export type Request =
  | { readonly kind: "prepare"; readonly problem: Problem }
  | { readonly kind: "burst"; readonly milliseconds: number };

/** Its answers; the first one, to nothing, says whether the library is there. */
export type Answer =
  | { readonly kind: "opened"; readonly version: string }
  | { readonly kind: "missing"; readonly reason: string }
  | { readonly kind: "prepared"; readonly values: readonly number[] }
  | { readonly kind: "measured"; readonly burst: Burst };
