// Log-probabilities as the two endpoints write them: chat as a list of objects, completions as four
// parallel lists.

import type { TokenLogprob, TokenLogprobs } from "@open-infra/engine";
import type { Tokenizer } from "@open-infra/model";

interface ChatTokenBody {
  readonly token: string;
  readonly logprob: number;
  readonly bytes: readonly number[];
}

/** `logprobs` of a chat choice. */
export interface ChatLogprobsBody {
  readonly content: readonly (ChatTokenBody & {
    readonly top_logprobs: readonly ChatTokenBody[];
  })[];
  readonly refusal: null;
}

/** JSON has no −∞; OpenAI and vLLM write this in its place. */
const LEAST_LOGPROB = -9999;

const finite = (logprob: number): number => Math.max(logprob, LEAST_LOGPROB);

function chatToken({ text, logprob, bytes }: TokenLogprob): ChatTokenBody {
  return { token: text, logprob: finite(logprob), bytes };
}

export function chatLogprobs(tokens: readonly TokenLogprobs[]): ChatLogprobsBody {
  return {
    content: tokens.map((token) => ({
      ...chatToken(token),
      top_logprobs: token.top.map(chatToken),
    })),
    refusal: null,
  };
}

/** `logprobs` of a completion choice. */
export interface CompletionLogprobsBody {
  readonly tokens: string[];
  readonly token_logprobs: (number | null)[];
  readonly top_logprobs: (Readonly<Record<string, number>> | null)[];
  readonly text_offset: number[];
}

/** A token that has no log-probability, which is the first of a prompt. */
export type BareToken = Pick<TokenLogprob, "tokenId" | "text">;

/**
 * Builds the lists piece by piece. An offset is where in the choice's text a token begins; special
 * tokens are not part of that text, and a character's bytes may come from several tokens.
 */
export class CompletionLogprobs {
  readonly #tokenizer: Tokenizer;
  readonly #decoder: TextDecoder = new TextDecoder("utf-8", { ignoreBOM: true });
  #offset = 0;

  constructor(tokenizer: Tokenizer) {
    this.#tokenizer = tokenizer;
  }

  take(tokens: readonly (TokenLogprobs | BareToken)[]): CompletionLogprobsBody {
    const body: CompletionLogprobsBody = {
      tokens: [],
      token_logprobs: [],
      top_logprobs: [],
      text_offset: [],
    };
    for (const token of tokens) {
      const known = "logprob" in token ? token : undefined;
      body.tokens.push(token.text);
      body.token_logprobs.push(known === undefined ? null : finite(known.logprob));
      body.top_logprobs.push(known === undefined ? null : topOf(known));
      body.text_offset.push(this.#offset);
      this.#advance(token.tokenId);
    }
    return body;
  }

  #advance(tokenId: number): void {
    if (this.#tokenizer.isSpecial(tokenId)) return;
    const bytes = this.#tokenizer.tokenBytes(tokenId);
    this.#offset += this.#decoder.decode(bytes, { stream: true }).length;
  }
}

/** The alternatives by their text, and the token itself among them. */
function topOf(token: TokenLogprobs): Record<string, number> {
  const entries = [...token.top, token].map(
    ({ text, logprob }) => [text, finite(logprob)] as const,
  );
  // The most likely of tokens with equal text wins, as in a list that is best first.
  return Object.fromEntries(entries.toReversed());
}

/** One body out of the pieces of a whole answer. */
export function joinCompletionLogprobs(
  pieces: readonly CompletionLogprobsBody[],
): CompletionLogprobsBody {
  return {
    tokens: pieces.flatMap((piece) => piece.tokens),
    token_logprobs: pieces.flatMap((piece) => piece.token_logprobs),
    top_logprobs: pieces.flatMap((piece) => piece.top_logprobs),
    text_offset: pieces.flatMap((piece) => piece.text_offset),
  };
}
