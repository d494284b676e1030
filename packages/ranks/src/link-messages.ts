// What a rank's thread and its link's thread say to each other. Control only: puts and signals go
// through the outbox in shared memory.

import type { SerializedError } from "@open-infra/errors";

/** How bytes leave this host. */
export type CarrierKind = "tcp" | "ucx";

/** What the link's thread is started with. */
export interface LinkThreadStart {
  readonly kind: CarrierKind;
  readonly rank: number;
  readonly size: number;
  /** Ranks that are reached over the link. */
  readonly peers: readonly number[];
  /** `rank 3 (host-a, process 4711)`, by rank. */
  readonly names: readonly string[];
  /** Which ranks are on this rank's host, by rank. */
  readonly sharesHost: readonly boolean[];
  /** The address that others reach this rank by. */
  readonly host: string;
  readonly secret: string;
  readonly timeoutMs: number;
  /** Silence of a peer after which it counts as gone. */
  readonly silenceMs: number;
  /** How long the thread stays awake after the last work. */
  readonly spinUs: number;
  /** Word 0 counts requests that are done; see {@link reasonBytes} for the rest. */
  readonly shared: SharedArrayBuffer;
}

/** Room for why a peer is gone, one text for each rank, behind the word of acknowledgements. */
export const reasonBytes = 256;
export const reasonsOffset = 64;

/** To the link's thread. */
export type LinkRequest =
  | { readonly request: "connect"; readonly cards: readonly (string | undefined)[] }
  | {
      readonly request: "start";
      readonly control: number;
      readonly group: number;
      readonly outbox: number;
      readonly eventFd: number;
    }
  | {
      readonly request: "register";
      readonly number: number;
      readonly data: number;
      readonly bytes: number;
      readonly flags: number;
      readonly flagCount: number;
    }
  | { readonly request: "unregister"; readonly number: number }
  | {
      readonly request: "abort";
      readonly code: number;
      readonly culprit: number;
      readonly reporter: number;
      readonly text: string;
    }
  | { readonly request: "close" };

/** From the link's thread. */
export type LinkReport =
  | { readonly report: "listening"; readonly card: string; readonly description: string }
  | { readonly report: "connected" }
  | { readonly report: "closed" }
  | { readonly report: "failed"; readonly error: SerializedError };
