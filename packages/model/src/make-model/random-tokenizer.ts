// A byte-level BPE tokenizer of any vocabulary size, made of syllables instead of a corpus: it
// encodes any text, and every id it holds decodes to something readable. Its pre-tokenizer is the
// one of DeepSeek-V3.

import { byteCharacters } from "../byte-level.ts";
import { ConfigError } from "../errors.ts";

const specialTokens = [
  "<｜begin▁of▁sentence｜>",
  "<｜end▁of▁sentence｜>",
  "<｜▁pad▁｜>",
  "<｜User｜>",
  "<｜Assistant｜>",
];

/** Vocabularies below this cannot spell every byte. */
export const smallestVocabulary: number = specialTokens.length + 256;

const consonants = [..."bcdfghjklmnpqrstvwxz"];
const vowels = [..."aeiou"];
const space = "Ġ";

/** Merges in order of priority: syllables, syllables after a space, then ever longer words. */
function* syllableMerges(): Generator<[string, string]> {
  const syllables: string[] = [];
  for (const c of consonants) for (const v of vowels) syllables.push(c + v);
  for (const syllable of syllables) yield [syllable[0] as string, syllable[1] as string];
  for (const syllable of syllables) yield [space, syllable];
  let words = [...syllables.map((s) => space + s), ...syllables];
  for (;;) {
    const longer: string[] = [];
    for (const syllable of syllables) {
      for (const word of words) {
        yield [word, syllable];
        longer.push(word + syllable);
      }
    }
    words = longer;
  }
}

const split = (regex: string): object => ({
  type: "Split",
  pattern: { Regex: regex },
  behavior: "Isolated",
  invert: false,
});

const punctuated = "[!\"#$%&'()*+,\\-./:;<=>?@\\[\\\\\\]^_`{|}~][A-Za-z]+";
const words = "[^\\r\\n\\p{L}\\p{P}\\p{S}]?[\\p{L}\\p{M}]+| ?[\\p{P}\\p{S}]+[\\r\\n]*";

const preTokenizer: object = {
  type: "Sequence",
  pretokenizers: [
    split("\\p{N}{1,3}"),
    split("[一-龥぀-ゟ゠-ヿ]+"),
    split(`${punctuated}|${words}|\\s*[\\r\\n]+|\\s+(?!\\S)|\\s+`),
    { type: "ByteLevel", add_prefix_space: false, trim_offsets: true, use_regex: false },
  ],
};

/**
 * The object of a tokenizer.json with exactly `vocabSize` entries. @throws ConfigError if too few.
 */
export function randomTokenizer(vocabSize: number): object {
  if (vocabSize < smallestVocabulary) {
    throw new ConfigError(
      "config.json",
      "vocab_size",
      `is ${vocabSize}; a byte-level tokenizer needs at least ${smallestVocabulary}`,
    );
  }
  const vocab: Record<string, number> = {};
  let next = specialTokens.length;
  for (const character of byteCharacters) vocab[character] = next++;
  const merges: [string, string][] = [];
  for (const [left, right] of syllableMerges()) {
    if (next >= vocabSize) break;
    vocab[left + right] = next++;
    merges.push([left, right]);
  }
  const [bos] = specialTokens as [string];
  return {
    version: "1.0",
    truncation: null,
    padding: null,
    added_tokens: specialTokens.map((content, id) => ({
      id,
      content,
      single_word: false,
      lstrip: false,
      rstrip: false,
      normalized: false,
      special: true,
    })),
    normalizer: null,
    pre_tokenizer: preTokenizer,
    post_processor: {
      type: "TemplateProcessing",
      single: [{ SpecialToken: { id: bos, type_id: 0 } }, { Sequence: { id: "A", type_id: 0 } }],
      pair: [{ Sequence: { id: "A", type_id: 0 } }, { Sequence: { id: "B", type_id: 1 } }],
      special_tokens: { [bos]: { id: bos, ids: [0], tokens: [bos] } },
    },
    decoder: { type: "ByteLevel", add_prefix_space: true, trim_offsets: true, use_regex: true },
    model: {
      type: "BPE",
      dropout: null,
      unk_token: null,
      continuing_subword_prefix: null,
      end_of_word_suffix: null,
      fuse_unk: false,
      byte_fallback: false,
      ignore_merges: false,
      vocab,
      merges,
    },
  };
}

/** A tokenizer_config.json with a chat template in DeepSeek's manner. */
export function randomTokenizerConfig(maxLength: number): object {
  const [bos, eos, pad, user, assistant] = specialTokens;
  return {
    add_bos_token: true,
    add_eos_token: false,
    bos_token: bos,
    eos_token: eos,
    pad_token: pad,
    clean_up_tokenization_spaces: false,
    model_max_length: maxLength,
    tokenizer_class: "LlamaTokenizerFast",
    chat_template:
      "{{ bos_token }}{% for message in messages %}{% if message['role'] == 'user' %}" +
      `{{ '${user}' + message['content'] }}{% elif message['role'] == 'assistant' %}` +
      `{{ '${assistant}' + message['content'] + eos_token }}{% else %}{{ message['content'] }}` +
      "{% endif %}{% endfor %}{% if add_generation_prompt %}" +
      `{{ '${assistant}' }}{% endif %}`,
  };
}
