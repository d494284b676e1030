// The turns of Chat mode. Knows the order of turns and what a request's messages are; sending is
// given to it.

import { type ReadonlySignal, type Signal, signal } from "@preact/signals";
import type { Generation } from "./generation.ts";

/** One entry of a request's `messages`. */
export interface Message {
  readonly role: "system" | "user" | "assistant";
  readonly content: string;
}

export type Turn =
  | { readonly id: number; readonly role: "user"; readonly text: string }
  | { readonly id: number; readonly role: "assistant"; readonly generation: Generation };

/** Starts a request for the next assistant turn. */
export type Answer = (messages: readonly Message[]) => Generation;

/** State of Chat mode; survives a visit to another page. */
export class Conversation {
  readonly #turns: Signal<readonly Turn[]> = signal([]);
  readonly #running: Signal<Generation | null> = signal(null);
  #nextId = 1;

  get turns(): ReadonlySignal<readonly Turn[]> {
    return this.#turns;
  }

  /** The answer being written, if one is. */
  get running(): ReadonlySignal<Generation | null> {
    return this.#running;
  }

  /** Adds a user turn and lets the model answer. */
  send(text: string, answer: Answer): void {
    this.stop();
    this.#turns.value = [...this.#turns.value, { id: this.#nextId++, role: "user", text }];
    this.#answer(answer);
  }

  /** Replaces the last answer by a new one. */
  regenerate(answer: Answer): void {
    this.stop();
    const turns = this.#turns.value;
    if (turns.at(-1)?.role === "assistant") this.#turns.value = turns.slice(0, -1);
    if (this.#turns.value.length > 0) this.#answer(answer);
  }

  /** Rewrites a user turn; everything after it is dropped and answered anew. */
  edit(id: number, text: string, answer: Answer): void {
    const at = this.#turns.value.findIndex((turn) => turn.id === id && turn.role === "user");
    if (at === -1) return;
    this.stop();
    this.#turns.value = this.#turns.value.slice(0, at);
    this.send(text, answer);
  }

  stop(): void {
    this.#running.value?.stop();
  }

  clear(): void {
    this.stop();
    this.#turns.value = [];
  }

  #answer(answer: Answer): void {
    const generation = answer(messagesOf(this.#turns.value));
    const turn = { id: this.#nextId++, role: "assistant", generation } as const;
    this.#turns.value = [...this.#turns.value, turn];
    this.#running.value = generation;
    void generation.ended.then(() => {
      if (this.#running.value === generation) this.#running.value = null;
    });
  }
}

/** The turns as a request carries them; an answer that never got a word is left out. */
export function messagesOf(turns: readonly Turn[]): Message[] {
  return turns
    .map((turn): Message => {
      if (turn.role === "user") return { role: "user", content: turn.text };
      return { role: "assistant", content: turn.generation.text.value };
    })
    .filter((message) => message.role !== "assistant" || message.content !== "");
}
