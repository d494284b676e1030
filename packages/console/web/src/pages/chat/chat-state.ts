// State of the chat page as a whole: which mode, which settings, which model, and how a request is
// made of them. Kept while other pages are shown, so that a long answer goes on being written.

import { computed, effect, type ReadonlySignal, type Signal, signal } from "@preact/signals";
import type { CompletionBody, CompletionPath } from "../../api/client.ts";
import { ApiError } from "../../api/errors.ts";
import type { DefaultSampling, ModelFacts } from "../../api/wire.ts";
import type { AppServices } from "../../app-services.ts";
import { nextFrame } from "../../ui/next-frame.ts";
import { CompletionDoc } from "./completion-doc.ts";
import { Conversation, type Message } from "./conversation.ts";
import { Generation } from "./generation.ts";
import {
  emptySampling,
  type SamplingForm,
  type SamplingResult,
  samplingFields,
} from "./sampling.ts";

export type Mode = "completion" | "chat";

/** No model below this size has learnt to answer; it can only continue text. */
const CHAT_PARAMETERS_MIN = 100e6;
const EXAMPLE_PROMPT = "def fibonacci(n):\n";

/** The mode a model is shown in until the user chooses. */
export function defaultMode(model: Pick<ModelFacts, "parameters"> | null): Mode {
  return model !== null && model.parameters >= CHAT_PARAMETERS_MIN ? "chat" : "completion";
}

/** Everything the chat page remembers. */
export class ChatState {
  readonly doc: CompletionDoc = new CompletionDoc(EXAMPLE_PROMPT);
  readonly conversation: Conversation = new Conversation();
  readonly systemPrompt: Signal<string> = signal("");
  /** The unsent message. */
  readonly draft: Signal<string> = signal("");
  readonly mode: ReadonlySignal<Mode>;
  readonly sampling: ReadonlySignal<SamplingForm>;
  readonly checked: ReadonlySignal<SamplingResult>;
  /** Ids of the served models; empty until known. */
  readonly models: Signal<readonly string[]> = signal([]);
  readonly #chosenModel: Signal<string> = signal("");
  readonly #chosenMode: Signal<Mode | null> = signal(null);
  /** A completion API stops after 16 tokens unless told otherwise; a chat ends by itself. */
  readonly #forms: Readonly<Record<Mode, Signal<SamplingForm>>> = {
    completion: signal({ ...emptySampling, maxTokens: "256" }),
    chat: signal(emptySampling),
  };
  readonly #services: AppServices;

  constructor(services: AppServices) {
    this.#services = services;
    this.mode = computed(
      () => this.#chosenMode.value ?? defaultMode(services.latest.value?.model ?? null),
    );
    this.sampling = computed(() => this.#forms[this.mode.value].value);
    this.checked = computed(() => samplingFields(this.sampling.value));
    // A server that comes back may serve another model.
    effect(() => {
      if (services.feedState.value.phase === "live") void this.#loadModels().catch(() => undefined);
    });
  }

  get model(): string {
    const models = this.models.value;
    return models.find((id) => id === this.#chosenModel.value) ?? models[0] ?? "";
  }

  /** The model's own sampling settings, which apply where the form is empty. */
  get modelDefaults(): DefaultSampling {
    return this.#services.latest.value?.model.defaultSampling ?? {};
  }

  chooseModel(id: string): void {
    this.#chosenModel.value = id;
  }

  chooseMode(mode: Mode): void {
    this.#chosenMode.value = mode;
  }

  setSampling(name: keyof SamplingForm, text: string): void {
    const form = this.#forms[this.mode.peek()];
    form.value = { ...form.peek(), [name]: text };
  }

  resetSampling(): void {
    this.#forms[this.mode.peek()].value = emptySampling;
  }

  /** Continues a prompt. */
  readonly complete = (prompt: string): Generation => this.#start("v1/completions", { prompt });

  /** Answers a conversation. */
  readonly answer = (messages: readonly Message[]): Generation => {
    const system = this.systemPrompt.peek().trim();
    const all = system === "" ? messages : [{ role: "system", content: system }, ...messages];
    return this.#start("v1/chat/completions", { messages: all });
  };

  #start(path: CompletionPath, input: CompletionBody): Generation {
    const sampling = this.checked.peek();
    return new Generation({
      client: this.#services.client,
      path,
      schedule: nextFrame,
      now: () => performance.now(),
      body: async (signal) => {
        if ("errors" in sampling) {
          const [field, problem] = Object.entries(sampling.errors)[0] ?? ["?", "?"];
          throw new ApiError(`The setting ${field} is wrong: ${problem}.`, { kind: "rejected" });
        }
        if (this.model === "") await this.#loadModels(signal);
        return { model: this.model, ...input, ...sampling.fields };
      },
    });
  }

  async #loadModels(signal?: AbortSignal): Promise<void> {
    this.models.value = await this.#services.client.models(signal);
  }
}
