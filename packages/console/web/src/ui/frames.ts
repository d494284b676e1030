// Collects small changes and applies them together, once a frame: a model may send hundreds of
// pieces of text a second, a screen shows sixty.

/** Calls back once, soon; returns how to call it off. */
export type Scheduler = (run: () => void) => () => void;

/** Joins pushed text and hands it on once a frame, in order. */
export class TextBatcher {
  readonly #schedule: Scheduler;
  readonly #apply: (text: string) => void;
  #pending = "";
  #cancel: (() => void) | undefined;

  constructor(schedule: Scheduler, apply: (text: string) => void) {
    this.#schedule = schedule;
    this.#apply = apply;
  }

  push(text: string): void {
    if (text === "") return;
    this.#pending += text;
    this.#cancel ??= this.#schedule(() => this.flush());
  }

  /** Hands on what is waiting, now. */
  flush(): void {
    this.#cancel?.();
    this.#cancel = undefined;
    const text = this.#pending;
    this.#pending = "";
    if (text !== "") this.#apply(text);
  }
}
