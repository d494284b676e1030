// Tells listeners what happened, after the scheduler is done with it: a listener may start or end
// an action, and finds the scheduler in order.

/** Events in the order in which they happened, told once they are published. */
export class Bulletin<E> {
  readonly #listeners = new Set<(event: E) => void>();
  #events: E[] = [];
  #publishing = false;

  listen(listener: (event: E) => void): () => void {
    this.#listeners.add(listener);
    return () => this.#listeners.delete(listener);
  }

  add(event: E): void {
    if (this.#listeners.size > 0) this.#events.push(event);
  }

  /** What listeners add by what they do is told after what was before it. */
  publish(): void {
    if (this.#publishing) return;
    this.#publishing = true;
    while (this.#events.length > 0) {
      const events = this.#events;
      this.#events = [];
      for (const event of events) for (const listener of this.#listeners) call(listener, event);
    }
    this.#publishing = false;
  }
}

/** A listener that throws (a log on a full disk) must not take the job with it. */
function call<E>(listener: (event: E) => void, event: E): void {
  try {
    listener(event);
  } catch (error) {
    process.emitWarning(`a listener of the scheduler failed: ${error}`, "SmallpondWarning");
  }
}
