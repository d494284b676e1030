// Which finished outputs nobody will read again, and how much room they take. An output stays while
// a task still reads it, while a user holds it, and while another output that stays consists of its
// files (a cut by rows writes nothing and points into its input).

import { DiskError } from "../errors.ts";
import type { TaskResult } from "../task/task.ts";
import type { Entry } from "./entry.ts";
import type { FaultPolicy } from "./policy.ts";

/** Where results are; in a job, its folder. */
export interface ResultStore {
  readonly root: string;
  /**
   * The whole, undamaged result of a task that some attempt has finished.
   *
   * @param fresh Also what was put there since the job began without the scheduler being told.
   */
  finished(key: string, fresh: boolean): TaskResult | undefined;
  remove(key: string): void;
  /** The task in whose output a file lies; undefined for the user's own files. */
  ownerOf(path: string): string | undefined;
  /** An executor is gone: what its attempts left unfinished may go. */
  abandoned(executor: string): void;
}

/** Tasks in whose outputs the files of a result lie. */
export function ownersOf(
  { outputs }: Pick<TaskResult, "outputs">,
  store: Pick<ResultStore, "ownerOf">,
): string[] {
  const owners = outputs.flatMap(({ parts }) => parts.map(({ path }) => store.ownerOf(path)));
  return [...new Set(owners.filter((owner) => owner !== undefined))];
}

/** Keys, and those of finished tasks whose outputs consist of files of theirs; inputs first. */
export function builtOn(
  keys: readonly string[],
  entries: Iterable<Entry>,
  store: Pick<ResultStore, "ownerOf">,
): string[] {
  const found = new Set(keys);
  for (const { task, result } of entries) {
    if (result === undefined) continue;
    if (ownersOf(result, store).some((owner) => found.has(owner))) found.add(task.key);
  }
  return [...found];
}

/** Outputs of a session's finished tasks. */
export class Outputs {
  readonly #store: ResultStore;
  readonly #policy: Pick<FaultPolicy, "keepIntermediates" | "maxDiskBytes">;
  readonly #onRelease: (entry: Entry) => void;
  /** Outputs by key, with whose files they consist of. */
  readonly #held = new Map<string, { entry: Entry; bytes: number; of: readonly string[] }>();
  /** How many outputs consist of files of a key. */
  readonly #holders = new Map<string, number>();
  /** Perhaps not needed, in the order in which they came to be so. */
  readonly #candidates = new Set<Entry>();
  #bytes = 0;

  constructor(
    store: ResultStore,
    policy: Pick<FaultPolicy, "keepIntermediates" | "maxDiskBytes">,
    onRelease: (entry: Entry) => void,
  ) {
    this.#store = store;
    this.#policy = policy;
    this.#onRelease = onRelease;
  }

  /** Bytes of all outputs that are there. */
  get bytes(): number {
    return this.#bytes;
  }

  /**
   * A task is done.
   *
   * @returns the error that ends its actions, if the job now holds more than it may
   */
  add(entry: Entry): DiskError | undefined {
    const { keepIntermediates, maxDiskBytes } = this.#policy;
    const bounded = maxDiskBytes < Number.POSITIVE_INFINITY;
    if (keepIntermediates === true && !bounded) return undefined;
    const own = entry.task.key;
    const of = new Set<string>();
    let bytes = 0;
    for (const data of entry.result?.outputs ?? []) {
      for (const part of data.parts) {
        const owner = this.#store.ownerOf(part.path);
        if (owner === own) bytes += part.bytes ?? 0;
        else if (owner !== undefined) of.add(owner);
      }
    }
    for (const key of of) this.#holders.set(key, (this.#holders.get(key) ?? 0) + 1);
    this.#held.set(own, { entry, bytes, of: [...of] });
    this.#bytes += bytes;
    if (this.#bytes > maxDiskBytes) this.makeSpace(maxDiskBytes);
    if (this.#bytes <= maxDiskBytes) return undefined;
    const message = `outputs of the job take ${this.#bytes} of maxDiskBytes ${maxDiskBytes}`;
    return new DiskError(this.#store.root, Math.max(0, maxDiskBytes - this.#bytes), message);
  }

  /** A task that read this one is over. */
  unread(entry: Entry): void {
    if (entry.state !== "done" || entry.readers > 0 || entry.kept) return;
    if (this.#policy.keepIntermediates === false) this.#release(entry);
    else if (this.#held.has(entry.task.key)) this.#candidates.add(entry);
  }

  /** Removes what nobody needs, the oldest first, until so much is left at most. */
  makeSpace(bytes: number): void {
    if (this.#policy.keepIntermediates === true) return;
    for (const entry of this.#candidates) {
      if (this.#bytes <= bytes) return;
      this.#candidates.delete(entry);
      this.#release(entry);
    }
  }

  /** A result is let go of by other means. */
  forget(key: string): void {
    const held = this.#held.get(key);
    if (held === undefined) return;
    this.#held.delete(key);
    this.#candidates.delete(held.entry);
    this.#bytes -= held.bytes;
    for (const other of held.of) this.#letGo(other);
  }

  #release(entry: Entry): void {
    const { key } = entry.task;
    if (entry.state !== "done" || entry.readers > 0 || entry.kept) return;
    if ((this.#holders.get(key) ?? 0) > 0) return;
    entry.state = "released";
    entry.result = undefined;
    this.#store.remove(key);
    this.#onRelease(entry);
    this.forget(key);
  }

  #letGo(key: string): void {
    const left = (this.#holders.get(key) ?? 1) - 1;
    if (left > 0) this.#holders.set(key, left);
    else {
      this.#holders.delete(key);
      const held = this.#held.get(key);
      if (held !== undefined) this.unread(held.entry);
    }
  }
}
