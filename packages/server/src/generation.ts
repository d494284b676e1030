// Runs the choices of one request beside each other on the engine and gives their events as one
// sequence. Whoever stops reading, for whatever reason, stops the engine's work too.

import type { EngineClient, GenerateEvent, GenerateRequest, Usage } from "@open-infra/engine";
import { unavailable } from "./errors.ts";

/** An event of the choice with this index. */
export interface ChoiceEvent {
  readonly index: number;
  readonly event: GenerateEvent;
}

interface Slot {
  readonly item: ChoiceEvent | { readonly error: unknown };
  readonly taken: () => void;
}

/**
 * One event at a time, taken from the engine only as fast as it is read here. The first error ends
 * all choices.
 *
 * @throws what the engine throws, and the signal's reason.
 */
export async function* runChoices(
  engine: EngineClient,
  requests: readonly GenerateRequest[],
  signal: AbortSignal,
): AsyncGenerator<ChoiceEvent, void, void> {
  const stop = new AbortController();
  const slots: Slot[] = [];
  let wake = (): void => {};
  let running = requests.length;
  const put = (item: Slot["item"]): Promise<void> =>
    new Promise((taken) => {
      slots.push({ item, taken });
      wake();
    });
  const pump = async (index: number, request: GenerateRequest): Promise<void> => {
    try {
      for await (const event of engine.generate(request, { signal: stop.signal })) {
        if (stop.signal.aborted) return;
        await put({ index, event });
      }
    } catch (error) {
      if (!stop.signal.aborted) await put({ error });
    } finally {
      running--;
      wake();
    }
  };
  const onAbort = (): void => wake();
  signal.addEventListener("abort", onAbort);
  try {
    for (const [index, request] of requests.entries()) void pump(index, request);
    for (;;) {
      signal.throwIfAborted();
      const slot = slots.shift();
      if (slot !== undefined) {
        try {
          if ("error" in slot.item) throw slot.item.error;
          yield checkFinish(slot.item);
        } finally {
          slot.taken();
        }
      } else if (running === 0) return;
      else {
        await new Promise<void>((resolve) => {
          wake = resolve;
        });
      }
    }
  } finally {
    signal.removeEventListener("abort", onAbort);
    stop.abort();
    for (const slot of slots.splice(0)) slot.taken();
  }
}

/** The engine ends a request by itself only when it is being closed under the server. */
function checkFinish(item: ChoiceEvent): ChoiceEvent {
  if (item.event.type === "finish" && item.event.reason === "abort") {
    throw unavailable("the engine stopped before the answer was complete", "engine_stopped", 10);
  }
  return item;
}

/** OpenAI's usage object. */
export interface UsageBody {
  readonly prompt_tokens: number;
  readonly completion_tokens: number;
  readonly total_tokens: number;
  readonly prompt_tokens_details: { readonly cached_tokens: number };
}

/**
 * Sums usage over choices. A prompt counts once, however many choices it has; of its cached tokens
 * the least count, since later choices find what the first one left.
 */
export class UsageSum {
  readonly #choicesPerPrompt: number;
  readonly #prompts = new Map<number, { tokens: number; cached: number }>();
  #completionTokens = 0;

  constructor(choicesPerPrompt: number) {
    this.#choicesPerPrompt = choicesPerPrompt;
  }

  add(index: number, usage: Usage): void {
    const prompt = Math.floor(index / this.#choicesPerPrompt);
    const cached = Math.min(
      this.#prompts.get(prompt)?.cached ?? usage.cachedTokens,
      usage.cachedTokens,
    );
    this.#prompts.set(prompt, { tokens: usage.promptTokens, cached });
    this.#completionTokens += usage.completionTokens;
  }

  get body(): UsageBody {
    let prompt = 0;
    let cached = 0;
    for (const entry of this.#prompts.values()) {
      prompt += entry.tokens;
      cached += entry.cached;
    }
    return {
      prompt_tokens: prompt,
      completion_tokens: this.#completionTokens,
      total_tokens: prompt + this.#completionTokens,
      prompt_tokens_details: { cached_tokens: cached },
    };
  }
}
