// POST /tokenize and /detokenize in vLLM's shapes.

import { parseBody, readJson } from "./body.ts";
import { checkModel } from "./completion-shared.ts";
import { checkTokenIds, renderChat } from "./prompts.ts";
import { detokenizeSchema, tokenizeSchema } from "./schema/tokenize.ts";
import type { ServerContext } from "./scope.ts";
import type { ServerState } from "./state.ts";

/** Texts longer than the context are tokenised too: counting them is what this is for. */
export async function postTokenize(state: ServerState, c: ServerContext): Promise<Response> {
  const backend = state.backend();
  const body = parseBody(tokenizeSchema, await readJson(c.req.raw, state.options.maxBodyBytes));
  if (body.model != null) checkModel(body.model, backend);
  const { messages } = body;
  const text = messages == null ? (body.prompt ?? "") : renderChat(messages, body, backend);
  const { encoder, engine } = backend;
  const tokens = await encoder.encode(text, {
    // A template writes its special tokens itself.
    addSpecialTokens: body.add_special_tokens ?? messages == null,
    signal: c.get("scope").signal,
  });
  const strings = body.return_token_strs === true ? await tokenStrings(tokens, encoder) : null;
  return c.json({
    count: tokens.length,
    max_model_len: engine.model.maxModelLen,
    tokens,
    token_strs: strings,
  });
}

async function tokenStrings(
  tokens: readonly number[],
  encoder: { decode(ids: readonly number[]): Promise<string> },
): Promise<string[]> {
  const strings: string[] = [];
  for (const token of tokens) strings.push(await encoder.decode([token]));
  return strings;
}

export async function postDetokenize(state: ServerState, c: ServerContext): Promise<Response> {
  const backend = state.backend();
  const body = parseBody(detokenizeSchema, await readJson(c.req.raw, state.options.maxBodyBytes));
  if (body.model != null) checkModel(body.model, backend);
  const tokens = checkTokenIds("tokens", body.tokens, backend.engine.model);
  return c.json({ prompt: await backend.encoder.decode(tokens) });
}
