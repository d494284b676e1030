// Text to token ids and back. Encoding is @huggingface/tokenizers over the model's tokenizer.json;
// decoding is done here on bytes, so that a stream of tokens and the whole list give the same text.

import { existsSync } from "node:fs";
import { join } from "node:path";
import { Tokenizer as HubEncoder } from "@huggingface/tokenizers";
import type { ChatMessage, ChatTemplateOptions, Detokenizer, Tokenizer } from "./api.ts";
import { bytesOfToken } from "./byte-level.ts";
import { ChatRenderer, findChatTemplates } from "./chat-template.ts";
import { TokenizerError } from "./errors.ts";
import { loadGenerationDefaults } from "./generation-config.ts";
import { isObject, type JsonObject, readJsonObject } from "./json-reader.ts";

/**
 * Opens the tokenizer in `dir`: tokenizer.json, and where present tokenizer_config.json, a chat
 * template and generation_config.json (for end tokens).
 *
 * @throws TokenizerError if tokenizer.json is missing, malformed or of a kind that is not
 * supported;
 *   ConfigError if one of the other files is malformed.
 */
export function loadTokenizer(dir: string): Tokenizer {
  const path = join(dir, "tokenizer.json");
  if (!existsSync(path)) {
    throw new TokenizerError(
      `${dir} has no tokenizer.json; take it from the model's page on the hub ` +
        "(a tokenizer.model alone is not enough)",
    );
  }
  const json = readJsonObject(path, "tokenizer.json");
  const configPath = join(dir, "tokenizer_config.json");
  const config = existsSync(configPath) ? readJsonObject(configPath, "tokenizer_config.json") : {};
  const eos = loadGenerationDefaults(dir).eosTokenIds;
  return new HubTokenizer(json, config, new Map(findChatTemplates(dir, config)), eos);
}

function decoderKinds(decoder: unknown): string[] {
  if (!isObject(decoder)) return ["none"];
  if (decoder.type === "Sequence" && Array.isArray(decoder.decoders)) {
    return decoder.decoders.flatMap(decoderKinds);
  }
  return [String(decoder.type)];
}

/**
 * Only byte-level vocabularies, which all DeepSeek models have, can be decoded piece by piece here.
 */
function checkKind(json: JsonObject): void {
  const model = isObject(json.model) ? json.model : {};
  if (model.type !== "BPE" && model.type !== undefined) {
    throw new TokenizerError(
      `tokenizer.json: model type ${JSON.stringify(model.type)} is not supported; expected "BPE"`,
    );
  }
  const kinds = decoderKinds(json.decoder);
  if (kinds.some((kind) => kind !== "ByteLevel")) {
    throw new TokenizerError(
      `tokenizer.json: decoder ${kinds.join(" + ")} is not supported; expected ByteLevel`,
    );
  }
}

function openEncoder(json: JsonObject, config: JsonObject): HubEncoder {
  try {
    return new HubEncoder(json, config);
  } catch (cause) {
    const reason = cause instanceof Error ? cause.message : String(cause);
    throw new TokenizerError(`tokenizer.json is not usable: ${reason}`, { cause });
  }
}

/** A special token of tokenizer_config.json: a string or an object with its content. */
function tokenContent(entry: unknown): string | undefined {
  if (typeof entry === "string") return entry;
  if (isObject(entry) && typeof entry.content === "string") return entry.content;
  return undefined;
}

function specialTokens(config: JsonObject): Record<string, string> {
  const found: Record<string, string> = {};
  for (const key of ["bos_token", "eos_token", "pad_token", "unk_token"]) {
    const content = tokenContent(config[key]);
    if (content !== undefined) found[key] = content;
  }
  return found;
}

class HubTokenizer implements Tokenizer {
  readonly vocabSize: number;
  readonly bosTokenId: number | undefined;
  readonly eosTokenIds: readonly number[];
  readonly #encoder: HubEncoder;
  readonly #tokens: readonly (string | undefined)[];
  readonly #special: ReadonlySet<number>;
  readonly #chat: ChatRenderer;
  /** What the post-processor puts around a text. */
  readonly #prefix: readonly number[];
  readonly #suffix: readonly number[];
  readonly #bytes = new Map<number, Uint8Array>();

  constructor(
    json: JsonObject,
    config: JsonObject,
    templates: ReadonlyMap<string, string>,
    generationEos: readonly number[],
  ) {
    checkKind(json);
    this.#encoder = openEncoder(json, config);
    const tokens: (string | undefined)[] = [];
    for (const [token, id] of this.#encoder.get_vocab()) tokens[id] = token;
    this.#tokens = tokens;
    this.vocabSize = tokens.length;
    const added = [...this.#encoder.get_added_tokens_decoder()];
    this.#special = new Set(added.filter(([, token]) => token.special).map(([id]) => id));
    const special = specialTokens(config);
    this.#chat = new ChatRenderer(templates, special);
    this.bosTokenId = this.#idOf(special.bos_token);
    const eos = this.#idOf(special.eos_token);
    this.eosTokenIds = [...new Set([...(eos === undefined ? [] : [eos]), ...generationEos])];
    const around = this.#postProcessing();
    this.#prefix = flagged(around.prefix, config.add_bos_token, this.bosTokenId);
    this.#suffix = flagged(around.suffix, config.add_eos_token, eos);
  }

  get hasChatTemplate(): boolean {
    return this.#chat.hasTemplate;
  }

  encode(text: string, options: { readonly addSpecialTokens?: boolean } = {}): number[] {
    const ids = this.#encodePlain(text);
    if (options.addSpecialTokens === false) return ids;
    return [...this.#prefix, ...ids, ...this.#suffix];
  }

  decode(ids: readonly number[], options: { readonly skipSpecialTokens?: boolean } = {}): string {
    const detokenizer = this.createDetokenizer(options);
    let text = "";
    for (const id of ids) text += detokenizer.push(id);
    return text + detokenizer.flush();
  }

  tokenBytes(id: number): Uint8Array {
    let bytes = this.#bytes.get(id);
    if (bytes === undefined) {
      // Ids without an entry (a vocabulary padded for speed) stand for nothing.
      bytes = bytesOfToken(this.#tokens[id] ?? "");
      this.#bytes.set(id, bytes);
    }
    return bytes;
  }

  isSpecial(id: number): boolean {
    return this.#special.has(id);
  }

  createDetokenizer(options: { readonly skipSpecialTokens?: boolean } = {}): Detokenizer {
    const skip = options.skipSpecialTokens ?? true;
    // A stream decoder holds back the bytes of an incomplete character and replaces invalid ones
    // exactly as it would in the whole.
    const decoder = new TextDecoder("utf-8", { ignoreBOM: true });
    return {
      push: (id) => {
        if (skip && this.isSpecial(id)) return "";
        return decoder.decode(this.tokenBytes(id), { stream: true });
      },
      flush: () => decoder.decode(),
    };
  }

  applyChatTemplate(messages: readonly ChatMessage[], options: ChatTemplateOptions = {}): string {
    return this.#chat.render(messages, options);
  }

  #encodePlain(text: string): number[] {
    const encoding = this.#encoder.encode(text, { add_special_tokens: false });
    // Characters that an incomplete alphabet lacks have no id; the reference drops them too.
    const ids: readonly (number | undefined)[] = encoding.ids;
    return ids.filter((id) => id !== undefined);
  }

  #idOf(token: string | undefined): number | undefined {
    return token === undefined ? undefined : this.#encoder.token_to_id(token);
  }

  /** What the post-processor adds, seen on a probe text. */
  #postProcessing(): { readonly prefix: readonly number[]; readonly suffix: readonly number[] } {
    const probe = "a";
    const plain = this.#encodePlain(probe);
    const ids: readonly number[] = this.#encoder.encode(probe, { add_special_tokens: true }).ids;
    const at = ids.findIndex((_, i) => plain.every((id, j) => ids[i + j] === id));
    if (at < 0) throw new TokenizerError("tokenizer.json: the post_processor changes the text");
    return { prefix: ids.slice(0, at), suffix: ids.slice(at + plain.length) };
  }
}

/** `add_bos_token` / `add_eos_token`, where written, win over the post-processor. */
function flagged(
  added: readonly number[],
  flag: unknown,
  token: number | undefined,
): readonly number[] {
  if (typeof flag !== "boolean" || token === undefined) return added;
  if (!flag) return added.filter((id) => id !== token);
  return added.includes(token) ? added : [token];
}
