// Text ↔ ids against the reference implementation's own output, streaming against the whole, and
// chat templates.

import { cpSync, existsSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { fileURLToPath } from "node:url";
import { requirement, seededRandom, sharedDir, testSeed } from "@open-infra/testing";
import { afterAll, describe, expect, it } from "vitest";
import {
  ChatTemplateError,
  loadGenerationDefaults,
  loadTokenizer,
  TokenizerError,
} from "../src/index.ts";
import { randomTokenizer, randomTokenizerConfig } from "../src/make-model/random-tokenizer.ts";

const fixtures = fileURLToPath(new URL("../fixtures/tokenizer", import.meta.url));
const scratch = mkdtempSync(join(tmpdir(), "open-infra-tokenizer-"));
afterAll(() => rmSync(scratch, { recursive: true, force: true }));

/** A copy of the fixture with tokenizer_config.json changed. */
function variant(name: string, config: object, files: Record<string, string> = {}): string {
  const dir = join(scratch, name);
  cpSync(fixtures, dir, { recursive: true });
  const path = join(dir, "tokenizer_config.json");
  const merged = { ...JSON.parse(readFileSync(path, "utf8")), ...config };
  writeFileSync(path, JSON.stringify(merged));
  for (const [file, text] of Object.entries(files)) writeFileSync(join(dir, file), text);
  return dir;
}

interface GoldenText {
  readonly text: string;
  readonly ids: number[];
  readonly ids_no_special: number[];
  readonly decoded: string;
}

function checkGolden(dir: string): void {
  const tokenizer = loadTokenizer(dir);
  const path = join(dir, "golden_tokenizer.json");
  for (const golden of JSON.parse(readFileSync(path, "utf8")) as GoldenText[]) {
    expect(tokenizer.encode(golden.text)).toEqual(golden.ids);
    const plain = tokenizer.encode(golden.text, { addSpecialTokens: false });
    expect(plain).toEqual(golden.ids_no_special);
    expect(tokenizer.decode(plain, { skipSpecialTokens: false })).toBe(golden.decoded);
  }
}

describe("tokenizer", () => {
  it("agrees with the reference's ids and texts", () => {
    checkGolden(fixtures);
  });

  for (const name of ["v3-bf16", "v3-fp8", "v2-lite-bf16"]) {
    const dir = sharedDir(`gold/${name}`);
    const met = dir !== undefined || "the shared reference folder is not beside the checkout";
    it.skipIf(requirement(`tokenizer of gold/${name}`, met, "optional"))(
      `agrees on ${name}`,
      () => {
        checkGolden(dir as string);
      },
    );
  }

  it("streams exactly what it decodes at once, whatever the tokens", () => {
    const tokenizer = loadTokenizer(fixtures);
    const random = seededRandom(testSeed());
    const texts = ["naïve 你好 👩‍🚀🚀", "\u{feff}BOM", "é́", "🇩🇪🇫🇷"];
    for (let round = 0; round < 300; round++) {
      const ids =
        round < texts.length
          ? tokenizer.encode(texts[round] as string)
          : Array.from({ length: random.int(1, 40) }, () => random.int(0, tokenizer.vocabSize + 2));
      for (const skipSpecialTokens of [true, false]) {
        const bytes = ids
          .filter((id) => !(skipSpecialTokens && tokenizer.isSpecial(id)))
          .flatMap((id) => [...tokenizer.tokenBytes(id)]);
        const whole = new TextDecoder("utf-8", { ignoreBOM: true }).decode(Uint8Array.from(bytes));
        const stream = tokenizer.createDetokenizer({ skipSpecialTokens });
        let text = "";
        for (const id of ids) {
          const piece = stream.push(id);
          // Half a surrogate pair would mean a character was split.
          expect(piece).not.toMatch(/[\ud800-\udbff]$/);
          text += piece;
        }
        text += stream.flush();
        const where = `seed ${random.seed}, round ${round}`;
        expect(text, where).toBe(whole);
        expect(tokenizer.decode(ids, { skipSpecialTokens }), where).toBe(whole);
      }
    }
  });

  it("holds back the bytes of an incomplete character", () => {
    const tokenizer = loadTokenizer(fixtures);
    const ids = tokenizer.encode("🚀", { addSpecialTokens: false });
    expect(ids.length).toBeGreaterThan(1);
    const stream = tokenizer.createDetokenizer();
    const pieces = ids.map((id) => stream.push(id));
    expect(pieces.slice(0, -1).join("")).toBe("");
    expect(pieces.at(-1)).toBe("🚀");
    stream.push(ids[0] as number);
    expect(stream.flush()).toBe("\ufffd");
  });

  it("round-trips any text", () => {
    const tokenizer = loadTokenizer(fixtures);
    const random = seededRandom(testSeed());
    for (let round = 0; round < 200; round++) {
      const text = Array.from({ length: random.int(0, 40) }, () => {
        const code = random.int(0, 4) === 0 ? random.int(0x80, 0x1ffff) : random.int(9, 127);
        return code >= 0xd800 && code < 0xe000 ? "x" : String.fromCodePoint(code);
      }).join("");
      const ids = tokenizer.encode(text, { addSpecialTokens: false });
      const back = tokenizer.decode(ids, { skipSpecialTokens: false });
      expect(back, `seed ${random.seed}, round ${round}`).toBe(text);
    }
  });

  it("lets add_bos_token win over the post-processor", () => {
    const plain = loadTokenizer(fixtures).encode("hi", { addSpecialTokens: false });
    expect(loadTokenizer(fixtures).encode("hi")).toEqual([0, ...plain]);
    expect(loadTokenizer(variant("nobos", { add_bos_token: false })).encode("hi")).toEqual(plain);
    const both = loadTokenizer(variant("eos", { add_eos_token: true }));
    expect(both.encode("hi")).toEqual([0, ...plain, 1]);
    const left = loadTokenizer(variant("unsaid", { add_bos_token: null }));
    expect(left.encode("hi")).toEqual([0, ...plain]);
  });

  it("collects end tokens from both files", () => {
    const dir = variant("ends", {}, { "generation_config.json": '{"eos_token_id": [1, 5]}' });
    expect(loadTokenizer(dir).eosTokenIds).toEqual([1, 5]);
    expect(loadTokenizer(fixtures).bosTokenId).toBe(0);
  });

  it("says what is wrong with its files", () => {
    expect(() => loadTokenizer(scratch)).toThrow(/has no tokenizer\.json/);
    expect(() => loadTokenizer(scratch)).toThrow(TokenizerError);
    const bad = variant("bad", {}, { "tokenizer.json": "{" });
    expect(() => loadTokenizer(bad)).toThrow(/tokenizer\.json.*not valid JSON/);
    const empty = variant("empty", {}, { "tokenizer.json": "{}" });
    expect(() => loadTokenizer(empty)).toThrow(TokenizerError);
    const json = JSON.parse(readFileSync(join(fixtures, "tokenizer.json"), "utf8"));
    const wordPiece = JSON.stringify({ ...json, decoder: { type: "WordPiece" } });
    const other = variant("other", {}, { "tokenizer.json": wordPiece });
    expect(() => loadTokenizer(other)).toThrow(/decoder WordPiece.*ByteLevel/);
  });
});

describe("chat template", () => {
  const user = [{ role: "user", content: "hi" }];

  it("renders the model's own template", () => {
    const tokenizer = loadTokenizer(fixtures);
    expect(tokenizer.hasChatTemplate).toBe(true);
    const open = "<｜begin▁of▁sentence｜><｜User｜>hi";
    expect(tokenizer.applyChatTemplate(user)).toBe(`${open}<｜Assistant｜>`);
    expect(tokenizer.applyChatTemplate(user, { addGenerationPrompt: false })).toBe(open);
  });

  it("takes a file over the entry, a named entry for tools, and extra variables", () => {
    const file = variant(
      "file",
      {},
      { "chat_template.jinja": "F{{ style }}{{ messages | length }}" },
    );
    expect(loadTokenizer(file).applyChatTemplate(user, { variables: { style: "!" } })).toBe("F!1");
    const json = variant("json", {}, { "chat_template.json": '{"chat_template": "J"}' });
    expect(loadTokenizer(json).applyChatTemplate(user)).toBe("J");
    const named = loadTokenizer(
      variant("named", {
        chat_template: [
          { name: "default", template: "D{% if tools is defined %}!{% endif %}" },
          { name: "tool_use", template: "T{{ tools[0].name }}" },
        ],
      }),
    );
    expect(named.applyChatTemplate(user)).toBe("D");
    expect(named.applyChatTemplate(user, { tools: [{ name: "f" }] })).toBe("Tf");
  });

  it("copes with what DeepSeek's templates do", () => {
    const template =
      "{% if not add_generation_prompt is defined %}" +
      "{% set add_generation_prompt = false %}{% endif %}" +
      "{% set ns = namespace(system='', last=none, tools=false) %}" +
      "{%- for m in messages %}{%- if m['role'] == 'system' %}" +
      "{% set ns.system = ns.system + m['content'] %}" +
      "{%- endif %}{%- endfor %}{{ bos_token }}{{ ns.system }}" +
      "{%- for m in messages %}{%- if m['role'] == 'user' -%}{{ '<｜User｜>' + m['content'] }}" +
      "{%- elif m['role'] == 'assistant' and m['content'] is not none -%}" +
      "{% set text = m['content'] %}{% if '</think>' in text %}" +
      "{% set text = text.split('</think>')[-1] %}{% endif %}" +
      "{{ '<｜Assistant｜>' + text + '<｜end▁of▁sentence｜>' }}" +
      "{%- elif m['role'] == 'assistant' -%}{%- for call in m['tool_calls'] -%}" +
      "{{ call['function']['name'] + '\\n```json\\n' + call['function']['arguments'] | tojson }}" +
      "{%- endfor -%}" +
      "{%- elif m['role'] not in ['system'] -%}{{ raise_exception('no role ' + m['role']) }}" +
      "{%- endif -%}{%- endfor -%}" +
      "{% if add_generation_prompt %}{{ '<｜Assistant｜><think>\\n' }}{% endif %}";
    const tokenizer = loadTokenizer(variant("r1", { chat_template: template }));
    const text = tokenizer.applyChatTemplate([
      { role: "system", content: "S" },
      { role: "user", content: "a" },
      { role: "assistant", content: "hm</think>b" },
      {
        role: "assistant",
        content: null,
        tool_calls: [{ function: { name: "f", arguments: { x: 1 } } }],
      },
      { role: "user", content: "c" },
    ]);
    expect(text).toBe(
      "<｜begin▁of▁sentence｜>S<｜User｜>a<｜Assistant｜>b<｜end▁of▁sentence｜>" +
        'f\n```json\n{"x": 1}<｜User｜>c<｜Assistant｜><think>\n',
    );
    const rejected = () => tokenizer.applyChatTemplate([{ role: "robot", content: "x" }]);
    expect(rejected).toThrow(ChatTemplateError);
    expect(rejected).toThrow(/rejects the messages.*no role robot/);
  });

  it("says when there is none, or when it does not parse", () => {
    const none = loadTokenizer(variant("none", { chat_template: null }));
    expect(none.hasChatTemplate).toBe(false);
    expect(() => none.applyChatTemplate(user)).toThrow(/no chat template/);
    const broken = loadTokenizer(variant("broken", { chat_template: "{% if %}" }));
    expect(() => broken.applyChatTemplate(user)).toThrow(ChatTemplateError);
    expect(() => loadTokenizer(variant("odd", { chat_template: 7 }))).toThrow(ChatTemplateError);
  });
});

describe("the random tokenizer of make-model", () => {
  it.each([261, 1024, 30000])("has %i usable entries", (size) => {
    const dir = variant(`random-${size}`, {});
    writeFileSync(join(dir, "tokenizer.json"), JSON.stringify(randomTokenizer(size)));
    writeFileSync(join(dir, "tokenizer_config.json"), JSON.stringify(randomTokenizerConfig(100)));
    const tokenizer = loadTokenizer(dir);
    expect(tokenizer.vocabSize).toBe(size);
    for (const text of ["banana tomato", "x = 你好 👍\n", ""]) {
      const ids = tokenizer.encode(text);
      expect(ids[0]).toBe(0);
      expect(tokenizer.decode(ids)).toBe(text);
    }
    for (const id of [4, 5, 260, size - 1])
      expect(tokenizer.tokenBytes(id).length).toBeGreaterThan(0);
    expect(tokenizer.applyChatTemplate([{ role: "user", content: "hi" }])).toContain("hi");
  });
});

describe("generation_config.json", () => {
  const write = (json: string) => variant("generation", {}, { "generation_config.json": json });
  it("is read, and optional", () => {
    const given = write(
      '{"temperature": 0.6, "top_p": 0.95, "do_sample": true, "eos_token_id": 1}',
    );
    expect(loadGenerationDefaults(given)).toMatchObject({
      temperature: 0.6,
      topP: 0.95,
      doSample: true,
      eosTokenIds: [1],
      topK: undefined,
    });
    expect(existsSync(join(fixtures, "generation_config.json"))).toBe(false);
    expect(loadGenerationDefaults(fixtures).eosTokenIds).toEqual([]);
  });
  it("names a bad value", () => {
    expect(() => loadGenerationDefaults(write('{"top_p": 2}'))).toThrow(/top_p is 2/);
    expect(() => loadGenerationDefaults(write('{"eos_token_id": [-1]}'))).toThrow(/eos_token_id/);
  });
});
