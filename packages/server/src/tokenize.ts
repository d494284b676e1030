// POST /tokenize and /detokenize in vLLM's shapes.

import type { ModelInfo } from "@open-infra/engine";
import type { Tokenizer } from "@open-infra/model";
import { parseBody, readJson } from "./body.ts";
import { checkModel } from "./completion-shared.ts";
import { badRequest } from "./errors.ts";
import { checkTokenIds, renderChat } from "./prompts.ts";
import { detokenizeSchema, tokenizeSchema } from "./schema/tokenize.ts";
import type { ServerContext } from "./scope.ts";
import type { ServerState } from "./state.ts";

/** Contexts that a text or a token list may fill: more than anybody counts, less than an attack. */
const MAX_CONTEXTS = 16;
/** Tokens between two looks at the event loop. */
const SLICE = 1024;

/** Texts longer than the context are tokenised too: counting them is what this is for. */
export async function postTokenize(state: ServerState, c: ServerContext): Promise<Response> {
  const backend = state.backend();
  const body = parseBody(tokenizeSchema, await readJson(c.req.raw, state.options.maxBodyBytes));
  if (body.model != null) checkModel(body.model, backend);
  const { messages } = body;
  const text = messages == null ? (body.prompt ?? "") : renderChat(messages, body, backend);
  const { encoder, engine } = backend;
  checkSize(messages == null ? "prompt" : "messages", encoder.leastTokens(text), engine.model);
  const tokens = await encoder.encode(text, {
    // A template writes its special tokens itself.
    addSpecialTokens: body.add_special_tokens ?? messages == null,
    signal: c.get("scope").signal,
  });
  const strings =
    body.return_token_strs === true ? await tokenStrings(tokens, encoder.tokenizer) : null;
  return c.json({
    count: tokens.length,
    max_model_len: engine.model.maxModelLen,
    tokens,
    token_strs: strings,
  });
}

function checkSize(param: string, tokens: number, { maxModelLen }: ModelInfo): void {
  const most = MAX_CONTEXTS * maxModelLen;
  if (tokens <= most) return;
  throw badRequest(param, `${param}: ${tokens} tokens or more; expected at most ${most}`);
}

async function tokenStrings(tokens: readonly number[], tokenizer: Tokenizer): Promise<string[]> {
  const strings: string[] = [];
  for (const [i, token] of tokens.entries()) {
    strings.push(tokenizer.decode([token], { skipSpecialTokens: false }));
    if (i % SLICE === SLICE - 1) await new Promise(setImmediate);
  }
  return strings;
}

export async function postDetokenize(state: ServerState, c: ServerContext): Promise<Response> {
  const backend = state.backend();
  const body = parseBody(detokenizeSchema, await readJson(c.req.raw, state.options.maxBodyBytes));
  if (body.model != null) checkModel(body.model, backend);
  checkSize("tokens", body.tokens.length, backend.engine.model);
  const tokens = checkTokenIds("tokens", body.tokens, backend.engine.model);
  return c.json({ prompt: await backend.encoder.decode(tokens) });
}
