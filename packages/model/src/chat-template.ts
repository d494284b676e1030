// Renders a model's own chat template (Jinja, as the hub stores it). It finds the template and
// hands it the variables that templates expect; what the words mean is the template's business.

import { existsSync, readFileSync } from "node:fs";
import { join } from "node:path";
import { Template } from "@huggingface/jinja";
import type { ChatMessage, ChatTemplateOptions } from "./api.ts";
import { ChatTemplateError } from "./errors.ts";
import { isObject, type JsonObject, parseJsonObject } from "./json-reader.ts";

/** Templates by name; most models have one, `default`. */
export type ChatTemplates = ReadonlyMap<string, string>;

/**
 * The templates of a model folder: chat_template.jinja, chat_template.json, or the entry of
 * tokenizer_config.json, in this order.
 *
 * @throws ChatTemplateError if a file is there and not understood.
 */
export function findChatTemplates(dir: string, tokenizerConfig: JsonObject): ChatTemplates {
  const jinja = join(dir, "chat_template.jinja");
  if (existsSync(jinja)) return new Map([["default", readFileSync(jinja, "utf8")]]);
  const json = join(dir, "chat_template.json");
  if (existsSync(json)) {
    const entry = parseJsonObject(readFileSync(json, "utf8"), "chat_template.json").chat_template;
    return templatesOf(entry, "chat_template.json");
  }
  return templatesOf(tokenizerConfig.chat_template, "tokenizer_config.json");
}

function templatesOf(entry: unknown, file: string): ChatTemplates {
  if (entry === undefined || entry === null) return new Map();
  if (typeof entry === "string") return new Map([["default", entry]]);
  const templates = new Map<string, string>();
  for (const item of Array.isArray(entry) ? entry : [entry]) {
    if (!isObject(item) || typeof item.name !== "string" || typeof item.template !== "string") {
      throw new ChatTemplateError(
        `${file}: chat_template must be a string or a list of {name, template}`,
      );
    }
    templates.set(item.name, item.template);
  }
  return templates;
}

/** A compiled template and the special tokens it may print. */
export class ChatRenderer {
  readonly #templates: ChatTemplates;
  readonly #specialTokens: Readonly<Record<string, string>>;
  readonly #compiled = new Map<string, Template>();

  constructor(templates: ChatTemplates, specialTokens: Readonly<Record<string, string>>) {
    this.#templates = templates;
    this.#specialTokens = specialTokens;
  }

  get hasTemplate(): boolean {
    return this.#templates.size > 0;
  }

  /** The prompt text. @throws ChatTemplateError */
  render(messages: readonly ChatMessage[], options: ChatTemplateOptions = {}): string {
    const template = this.#template(options.tools !== undefined);
    const { tools } = options;
    try {
      return template.render({
        ...this.#specialTokens,
        ...options.variables,
        messages,
        // Templates ask `is defined` as often as `is not none`: absent and null must both work.
        ...(tools !== undefined && tools.length > 0 && { tools }),
        add_generation_prompt: options.addGenerationPrompt ?? true,
      });
    } catch (cause) {
      const reason = cause instanceof Error ? cause.message : String(cause);
      throw new ChatTemplateError(`the model's chat template rejects the messages: ${reason}`, {
        cause,
      });
    }
  }

  #template(withTools: boolean): Template {
    const { size } = this.#templates;
    if (size === 0) {
      throw new ChatTemplateError(
        "the model has no chat template (chat_template.jinja, or chat_template in " +
          "tokenizer_config.json); use plain completions instead",
      );
    }
    const wanted = withTools && this.#templates.has("tool_use") ? "tool_use" : "default";
    const name = this.#templates.has(wanted) ? wanted : ([...this.#templates.keys()][0] as string);
    let template = this.#compiled.get(name);
    if (template === undefined) {
      try {
        template = new Template(this.#templates.get(name) as string);
      } catch (cause) {
        const reason = cause instanceof Error ? cause.message : String(cause);
        throw new ChatTemplateError(`the model's chat template does not parse: ${reason}`, {
          cause,
        });
      }
      this.#compiled.set(name, template);
    }
    return template;
  }
}
