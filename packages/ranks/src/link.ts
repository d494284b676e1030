// The seam to ranks whose memory is not mapped here: something that empties the outbox of puts and
// signals in order, applies what comes in to this rank's windows, and tells who is gone. The
// implementations are tcp and ucx.

import type { Control } from "./control.ts";
import type { Group } from "./group.ts";
import type { RanksNative } from "./native.ts";
import type { Region } from "./region.ts";
import type { Window } from "./window.ts";

/** What a link works on. */
export interface LinkStart {
  readonly group: Group;
  readonly native: RanksNative;
  readonly control: Control;
  /** Address of the `oi_outbox`. */
  readonly outbox: number;
  /** Written when the outbox has something and the link had said it was idle. */
  readonly eventFd: number;
}

/**
 * Moves bytes to and from peers that are not mapped. What must hold is said in oi_ranks.h; besides:
 * a peer whose connection ends without a word is marked dead in the control region, and an abort
 * here reaches the others.
 */
export interface Link {
  start(start: LinkStart): void;
  /** From now on peers may put into this window. */
  register(number: number, window: Window, region: Region): void;
  /** Returns when no peer can write into it any more, as far as all close it in the same order. */
  unregister(window: Window): void;
  /** Why a peer counts as gone; empty if the link has nothing to say. */
  reason(peer: number): string;
  abort(code: number, culprit: number, reporter: number, text: string): void;
  close(): Promise<void>;
}
