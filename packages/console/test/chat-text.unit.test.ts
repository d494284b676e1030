// The pure parts of the chat page: the shared document, the settings form, Markdown, numbers.

import { seededRandom, testSeed } from "@open-infra/testing";
import { describe, expect, it } from "vitest";
import { docBlocks, rangeAfterEdit } from "../web/src/pages/chat/completion-doc.ts";
import { parseBlocks, parseInline, splitReasoning } from "../web/src/pages/chat/markdown.ts";
import {
  emptySampling,
  fieldRules,
  placeholderOf,
  samplingFields,
  stopStrings,
} from "../web/src/pages/chat/sampling.ts";
import { parseHash } from "../web/src/router.ts";
import * as format from "../web/src/ui/format.ts";

describe("rangeAfterEdit", () => {
  const before = "prompt GENERATED tail";
  const range = { from: 7, to: 16 };

  it("moves with edits before it and stays for edits after it", () => {
    expect(rangeAfterEdit(before, `a ${before}`, range)).toEqual({ from: 9, to: 18 });
    expect(rangeAfterEdit(before, before.slice(3), range)).toEqual({ from: 4, to: 13 });
    expect(rangeAfterEdit(before, `${before}!`, range)).toEqual(range);
    expect(rangeAfterEdit(before, "prompt GENERATED", range)).toEqual(range);
  });

  it("ends where an edit inside it begins, and vanishes when its start is edited", () => {
    expect(rangeAfterEdit(before, "prompt GENxATED tail", range)).toEqual({ from: 7, to: 10 });
    expect(rangeAfterEdit(before, "prom tail", range)).toBeNull();
    expect(rangeAfterEdit(before, "", range)).toBeNull();
  });

  it("always marks text that stood in the range before", () => {
    const seed = testSeed();
    const random = seededRandom(seed);
    for (let round = 0; round < 2000; round++) {
      const text = Array.from({ length: 12 }, () => random.pick(["a", "b"])).join("");
      const from = random.int(0, 12);
      const to = random.int(from + 1, 13);
      const at = random.int(0, 13);
      const cut = random.int(at, 13);
      const after = text.slice(0, at) + "ab".slice(0, random.int(0, 3)) + text.slice(cut);
      const kept = rangeAfterEdit(text, after, { from, to });
      if (kept === null) continue;
      const message = `seed ${seed}, round ${round}: ${text} to ${after}, ${from} to ${to}`;
      expect(kept.from, message).toBeLessThan(kept.to);
      expect(text.slice(from, to), message).toContain(after.slice(kept.from, kept.to));
    }
  });
});

describe("docBlocks", () => {
  const line = "x".repeat(99);
  const long = Array.from({ length: 100 }, (_, index) => `${index} ${line}`).join("\n");

  it("holds the whole text, with the marked part where it belongs", () => {
    const range = { from: 30, to: 4000 };
    const blocks = docBlocks(long, range);
    expect(blocks.length).toBeGreaterThan(5);
    const joined = blocks.map((block) => block.before + block.generated + block.after).join("\n");
    expect(joined).toBe(long);
    const marked = blocks.map((block) => block.generated).filter((text) => text !== "");
    expect(marked.join("\n")).toBe(long.slice(30, 4000));
  });

  it("changes only its last block when text is appended", () => {
    const range = { from: 10, to: long.length };
    const before = docBlocks(long, range);
    const after = docBlocks(`${long} and more\nand more`, { from: 10, to: long.length + 18 });
    expect(after.slice(0, before.length - 1)).toEqual(before.slice(0, -1));
  });

  it("gives an empty document one block, and a final line break one of its own", () => {
    expect(docBlocks("", null)).toEqual([{ at: 0, before: "", generated: "", after: "" }]);
    expect(docBlocks("a\n", null)).toHaveLength(1);
    expect(docBlocks(`${"a".repeat(1500)}\n`, null).map((block) => block.at)).toEqual([0, 1501]);
  });
});

describe("samplingFields", () => {
  it("sends nothing for an empty form", () => {
    expect(samplingFields(emptySampling)).toEqual({ fields: {} });
  });

  it("uses the API's names", () => {
    const filled = {
      temperature: "0",
      topP: " 0.9 ",
      topK: "40",
      minP: "0.05",
      repetitionPenalty: "1.1",
      maxTokens: "64",
      seed: "7",
      stop: "END\n\n\\n\\n",
    };
    expect(samplingFields(filled)).toEqual({
      fields: {
        temperature: 0,
        top_p: 0.9,
        top_k: 40,
        min_p: 0.05,
        repetition_penalty: 1.1,
        max_tokens: 64,
        seed: 7,
        stop: ["END", "\n\n"],
      },
    });
  });

  it("says what is wrong with which field", () => {
    const wrong = {
      ...emptySampling,
      temperature: "hot",
      topP: "1.5",
      topK: "2.5",
      maxTokens: "0",
    };
    expect(samplingFields({ ...wrong, stop: "a\nb\nc\nd\ne" })).toEqual({
      errors: {
        temperature: "not a number",
        topP: "at most 1",
        topK: "whole numbers only",
        maxTokens: "at least 1",
        stop: "at most 4 stop strings",
      },
    });
  });

  it("unescapes stop strings and nothing else", () => {
    expect(stopStrings("\\t\\\\n\\x")).toEqual(["\t\\n\\x"]);
    expect(stopStrings("a b ")).toEqual(["a b "]);
  });

  it("shows the model's own defaults as placeholders", () => {
    expect(placeholderOf("temperature", { temperature: 0.6 })).toBe("0.6");
    expect(placeholderOf("topP", {})).toBe("1");
    expect(fieldRules.map((rule) => placeholderOf(rule.name, {}))).not.toContain("undefined");
  });
});

describe("Markdown", () => {
  it("cuts blocks", () => {
    const text = "# Title\nline one\nline two\n\n- a\n  - b\n3. c\n\n```py\nx = '```'\n```\nend";
    expect(parseBlocks(text).map((block) => block.kind)).toEqual([
      "heading",
      "paragraph",
      "list",
      "code",
      "paragraph",
    ]);
    const list = parseBlocks(text)[2];
    expect(list?.kind === "list" && list.items).toEqual([
      { marker: "•", text: "a", depth: 0 },
      { marker: "•", text: "b", depth: 1 },
      { marker: "3.", text: "c", depth: 0 },
    ]);
  });

  it("reads an unfinished code block as code", () => {
    expect(parseBlocks("```js\nlet x")).toEqual([
      { kind: "code", source: "```js\nlet x", lang: "js", text: "let x" },
    ]);
    expect(parseBlocks("```")).toEqual([{ kind: "code", source: "```", lang: "", text: "" }]);
  });

  it("loses no text and leaves finished blocks alone while text streams in", () => {
    const text = "Say *this*\n\n* one\n* two\n\n~~~\n<b>&\n~~~\n\n## Last **word**";
    let before = parseBlocks("");
    for (let end = 1; end <= text.length; end++) {
      const blocks = parseBlocks(text.slice(0, end));
      const finished = before.slice(0, -1).map((block) => block.source);
      expect(blocks.slice(0, finished.length).map((block) => block.source)).toEqual(finished);
      const letters = (whole: string): string => whole.replace(/\s/g, "");
      expect(letters(blocks.map((block) => block.source).join(""))).toBe(
        letters(text.slice(0, end)),
      );
      before = blocks;
    }
  });

  it("marks inline text, and takes lonely marks as they stand", () => {
    expect(parseInline("a `b` **c** *d* e")).toEqual([
      { kind: "text", text: "a " },
      { kind: "code", text: "b" },
      { kind: "text", text: " " },
      { kind: "strong", text: "c" },
      { kind: "text", text: " " },
      { kind: "emphasis", text: "d" },
      { kind: "text", text: " e" },
    ]);
    expect(parseInline("``a ` b``")).toEqual([{ kind: "code", text: "a ` b" }]);
    for (const plain of ["2 * 3 * 4", "`open", "**open", "a ** b", "", "***"]) {
      expect(
        parseInline(plain)
          .map((part) => part.text)
          .join(""),
      ).toBe(plain);
      expect(parseInline(plain).every((part) => part.kind === "text")).toBe(true);
    }
  });

  it("stays quick on text made to be slow", () => {
    // Quadratic work on these would take minutes, and the test runner's limit would end it.
    for (const piece of ["*a ", "`", "``a`", "**", "* ", "_*`"]) {
      const text = piece.repeat(40_000);
      expect(parseInline(text).map((part) => part.text.length).length).toBeGreaterThan(0);
    }
  });

  it("splits reasoning off, with or without its opening mark", () => {
    const whole = { reasoning: "hm", answer: "yes", decided: true };
    expect(splitReasoning("<think>\nhm\n</think>\n\nyes")).toEqual(whole);
    expect(splitReasoning("hm</think>yes")).toEqual(whole);
    expect(splitReasoning("<think>h")).toEqual({ reasoning: "h", answer: "", decided: false });
    expect(splitReasoning("yes")).toEqual({ reasoning: null, answer: "yes", decided: true });
  });
});

describe("numbers and addresses", () => {
  it("are short and steady", () => {
    expect([0, 0.4234, 7.306, 42, 137.4, 1240].map(format.formatQuantity)).toEqual([
      "0",
      "0.42",
      "7.31",
      "42.0",
      "137",
      "1,240",
    ]);
    expect([null, undefined, Number.NaN].map(format.formatQuantity)).toEqual(["–", "–", "–"]);
    expect([9_670_000, 671e9, 999, 999_600].map(format.formatLarge)).toEqual([
      "9.67 M",
      "671 B",
      "999",
      "1 M",
    ]);
    expect([0.4, 42.4, 1234].map(format.formatMs)).toEqual(["0.4 ms", "42 ms", "1.23 s"]);
    expect([42, 720, 11_100, 187_200].map(format.formatUptime)).toEqual([
      "42 s",
      "12 min",
      "3 h 05 min",
      "2 d 4 h",
    ]);
    expect(format.formatPercent(0.5)).toBe("50.0 %");
    expect(format.formatCount(1234.4)).toBe("1,234");
  });

  it("are read from the hash", () => {
    expect(parseHash("")).toEqual({ path: "", rest: "" });
    expect(parseHash("#/engine")).toEqual({ path: "engine", rest: "" });
    expect(parseHash("#/profile/a/b")).toEqual({ path: "profile", rest: "a/b" });
  });
});
