// From tokens to the text that a client sees: detokenised piece by piece, whole characters only,
// nothing of a stop string. Also how a token is shown in log-probabilities.

import type { Detokenizer, Tokenizer } from "@open-infra/model";
import type { TokenLogprob, TokenLogprobs } from "./api.ts";
import type { RowLogprobs } from "./sampler.ts";
import type { ResolvedSampling } from "./sampling-params.ts";
import { StopMatcher, type StopResult } from "./stop.ts";

/** The text of one request. */
export class TextStream {
  readonly #detokenizer: Detokenizer;
  readonly #matcher: StopMatcher;
  readonly #minTokens: number;
  #tokens = 0;

  constructor(tokenizer: Tokenizer, sampling: ResolvedSampling) {
    this.#detokenizer = tokenizer.createDetokenizer();
    this.#matcher = new StopMatcher(sampling.stop);
    this.#minTokens = sampling.minTokens;
  }

  /** Adds a token; returns the text that became certain, and the stop string if one is complete. */
  push(tokenId: number): StopResult {
    const text = this.#detokenizer.push(tokenId);
    // A stop string must lie wholly behind the tokens that were asked for at least.
    if (++this.#tokens <= this.#minTokens) return { text, stop: null };
    return this.#matcher.push(text);
  }

  /** What is left when the text ends without a stop string; it may still complete one. */
  finish(): StopResult {
    const { text, stop } = this.#matcher.push(this.#detokenizer.flush());
    return stop === null ? { text: text + this.#matcher.flush(), stop } : { text, stop };
  }
}

/** Shows tokens to people; every token is looked up once. */
export class TokenNames {
  readonly #tokenizer: Tokenizer;
  readonly #known = new Map<number, { readonly text: string; readonly bytes: readonly number[] }>();

  constructor(tokenizer: Tokenizer) {
    this.#tokenizer = tokenizer;
  }

  logprob(tokenId: number, logprob: number): TokenLogprob {
    let name = this.#known.get(tokenId);
    if (name === undefined) {
      name = {
        text: this.#tokenizer.decode([tokenId], { skipSpecialTokens: false }),
        bytes: Array.from(this.#tokenizer.tokenBytes(tokenId)),
      };
      this.#known.set(tokenId, name);
    }
    return { tokenId, text: name.text, bytes: name.bytes, logprob };
  }

  logprobs(tokenId: number, row: RowLogprobs): TokenLogprobs {
    const top = row.top.map(([id, logprob]) => this.logprob(id, logprob));
    return { ...this.logprob(tokenId, row.logprob), top };
  }
}
