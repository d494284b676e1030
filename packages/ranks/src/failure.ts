// How a group fails, as the error that a rank throws: its own failure first, which names whom it
// waited for and what for; else the failure of another rank that ended the group.

import type { AbortReason, Control } from "./control.ts";
import {
  type FailureFacts,
  GroupAbortedError,
  type GroupError,
  RankDeadError,
  RankMismatchError,
  RanksSystemError,
  RankTimeoutError,
} from "./errors.ts";
import { type RanksNative, readText } from "./native.ts";

/** How a wait, and with it an operation, ends; as in oi_ranks.h. */
export const outcome = {
  arrived: 0,
  aborted: 1,
  timedOut: 2,
  peerDead: 3,
  badData: 4,
  refused: 5,
} as const;

/** How this rank's own operation failed; read from the native record. */
export interface OwnFailure {
  readonly code: number;
  readonly peer: number;
  readonly waitedMs: number;
  readonly awaited: string;
  readonly operation: string;
  readonly text: string;
}

/** Looks for the failure of one rank's group. */
export class FailureWatch {
  readonly #native: RanksNative;
  readonly #control: Control;
  readonly #group: number;
  readonly #rank: number;
  readonly #code: Int32Array;
  /** What a link knows of why a peer is gone. */
  readonly #reason: (peer: number) => string;

  constructor(init: {
    readonly native: RanksNative;
    readonly control: Control;
    /** The native `oi_group`. */
    readonly group: number;
    readonly rank: number;
    readonly reason: (peer: number) => string;
  }) {
    this.#native = init.native;
    this.#control = init.control;
    this.#group = init.group;
    this.#rank = init.rank;
    this.#reason = init.reason;
    const at = this.#group + this.#native.layout.groupFailure;
    const bytes = this.#native.view(at, 4);
    this.#code = new Int32Array(bytes.buffer, bytes.byteOffset, 1);
  }

  /** Whether there is anything; costs two loads. */
  get isSilent(): boolean {
    return Atomics.load(this.#code, 0) === 0 && !this.#control.isAborted;
  }

  /** The error to throw. */
  error(): GroupError | RanksSystemError {
    const own = this.#own();
    const aborted = this.#control.aborted;
    if (own === undefined) return this.#ended(aborted, undefined);
    // Whoever failed first has the cause; what fails after it only fails because of it.
    const first = aborted === undefined || aborted.reporter === this.#rank;
    return own.code === outcome.aborted || !first ? this.#ended(aborted, own) : this.#caused(own);
  }

  #own(): OwnFailure | undefined {
    // Another thread may be writing it.
    while (Atomics.load(this.#code, 0) < 0);
    const code = Atomics.load(this.#code, 0);
    if (code === 0) return undefined;
    const { groupFailure, failureAwaited, failureOperation, failureText } = this.#native.layout;
    const at = this.#group + groupFailure;
    const bytes = this.#native.view(at, failureAwaited).slice();
    const view = new DataView(bytes.buffer);
    return {
      code,
      peer: view.getInt32(4, true),
      waitedMs: Number(view.getBigInt64(8, true)) / 1e6,
      awaited: readText(at + failureAwaited, 96),
      operation: readText(at + failureOperation, 48),
      text: readText(at + failureText, 480),
    };
  }

  #ended(aborted: AbortReason | undefined, own: OwnFailure | undefined): GroupError {
    const facts: FailureFacts = {
      rank: this.#rank,
      peer: aborted?.culprit ?? -1,
      operation: own?.operation ?? this.#control.activity(this.#rank).operation,
      awaited: own?.awaited ?? "",
      waitedMs: own?.waitedMs ?? 0,
    };
    return new GroupAbortedError(aborted?.text ?? "the group has ended", facts);
  }

  #caused({
    code,
    peer,
    waitedMs,
    awaited,
    operation,
    text,
  }: OwnFailure): GroupError | RanksSystemError {
    const facts: FailureFacts = { rank: this.#rank, peer, operation, awaited, waitedMs };
    if (code === outcome.badData) return new RankMismatchError(text, facts);
    if (code === outcome.refused) return new RanksSystemError(text, 12);
    if (code === outcome.timedOut) return new RankTimeoutError(text, facts);
    const reason = peer < 0 ? "" : this.#reason(peer);
    return new RankDeadError(reason === "" ? text : `${text} (${reason})`, facts);
  }
}
