// The command line as a newcomer meets it: help, exit statuses, and a sentence for each mistake.

import {
  cpSync,
  existsSync,
  mkdtempSync,
  readFileSync,
  rmSync,
  truncateSync,
  unlinkSync,
  writeFileSync,
} from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { fileURLToPath } from "node:url";
import { maxAbsDiff } from "@open-infra/testing";
import { afterAll, beforeAll, describe, expect, it } from "vitest";
import { runCli } from "./run-cli.ts";

const fixture = fileURLToPath(new URL("../../model/fixtures/small-v3-fp8", import.meta.url));

let folder = "";
beforeAll(() => {
  folder = mkdtempSync(join(tmpdir(), "open-infra-cli-"));
});
afterAll(() => rmSync(folder, { recursive: true, force: true }));

/** A copy of the fixture that a test may break. */
function copyOfFixture(name: string): string {
  const dir = join(folder, name);
  cpSync(fixture, dir, { recursive: true });
  return dir;
}

describe("help and usage", () => {
  it("lists the commands and exits 0", async () => {
    const { code, stdout } = await runCli(["--help"]);
    expect(code).toBe(0);
    for (const command of ["serve", "score", "make-model", "jit", "bench", "doctor"]) {
      expect(stdout).toContain(command);
    }
  });

  it("explains each command", async () => {
    const { code, stdout } = await runCli(["serve", "--help"]);
    expect(code).toBe(0);
    expect(stdout).toContain("--max-sequences");
  });

  it("names a mistyped command's neighbour and exits 2", async () => {
    const { code, stderr } = await runCli(["scor"]);
    expect(code).toBe(2);
    expect(stderr).toContain("score");
  });

  it.each([
    [["serve", "--port", "99999"], "whole number from 0 to 65535"],
    [["score", "--tokens", "1,x"], "'x' is not a token id"],
    [["score", "--dtype", "int3", "--tokens", "1"], "int3"],
    [["serve", "--no-such-flag"], "no-such-flag"],
  ])("%j exits 2 and says why", async (args, message) => {
    const { code, stderr } = await runCli(args);
    expect(stderr).toContain(message);
    expect(code).toBe(2);
  });
});

describe("score", () => {
  interface Golden {
    cases: { prompt: number[]; last_logits: number[]; token_logprobs: number[] }[];
  }
  const golden = JSON.parse(readFileSync(join(fixture, "golden.json"), "utf8")) as Golden;

  it("prints the golden logits of a fixture, exact in f32", async () => {
    const example = golden.cases.find((c) => c.prompt.length > 3);
    if (!example) throw new Error("the fixture has no case of more than three tokens");
    const file = join(folder, "tokens.json");
    writeFileSync(file, JSON.stringify(example.prompt));
    const { code, stdout, stderr } = await runCli([
      "score",
      "--model",
      fixture,
      "--tokens-file",
      file,
      "--dtype",
      "f32",
    ]);
    expect(stderr).not.toContain("failure");
    expect(code).toBe(0);
    const scored = JSON.parse(stdout) as { last_logits: number[]; token_logprobs: number[] };
    expect(maxAbsDiff(scored.last_logits, example.last_logits)).toBeLessThanOrEqual(1e-4);
    expect(maxAbsDiff(scored.token_logprobs, example.token_logprobs)).toBeLessThanOrEqual(1e-4);
  });

  it("takes tokens on the command line", async () => {
    const example = golden.cases[0];
    const { code, stdout } = await runCli([
      "score",
      "--model",
      fixture,
      "--tokens",
      String(example?.prompt),
      "--dtype",
      "f32",
    ]);
    expect(code).toBe(0);
    expect(JSON.parse(stdout).last_logits).toHaveLength(example?.last_logits.length ?? 0);
  });

  it.each([
    ["no tokens", [], "either as --tokens"],
    ["a token outside the vocabulary", ["--tokens", "1,999999"], "999999"],
  ])("refuses %s", async (_what, args, message) => {
    const { code, stderr } = await runCli(["score", "--model", fixture, ...args]);
    expect(stderr).toContain(message);
    expect(stderr).not.toContain("unexpected failure");
    expect(code).not.toBe(0);
  });
});

describe("broken checkpoints", () => {
  const shard = "model-00001-of-00002.safetensors";
  const score = (dir: string) => runCli(["score", "--model", dir, "--tokens", "0,1"]);
  const expectSentence = (result: { code: number | null; stderr: string }, ...parts: string[]) => {
    for (const part of parts) expect(result.stderr).toContain(part);
    expect(result.stderr).not.toContain("unexpected failure");
    expect(result.code).not.toBe(0);
  };

  it("names a folder that is not there", async () => {
    expectSentence(await score(join(folder, "nowhere")), "nowhere");
  });

  it("names a truncated shard", async () => {
    const dir = copyOfFixture("truncated");
    truncateSync(join(dir, shard), 100_000);
    expectSentence(await score(dir), shard);
  });

  it("names a shard whose header is garbage", async () => {
    const dir = copyOfFixture("garbage");
    const bytes = readFileSync(join(dir, shard));
    bytes.fill(0xff, 0, 64);
    writeFileSync(join(dir, shard), bytes);
    expectSentence(await score(dir), shard);
  });

  it("names a missing shard", async () => {
    const dir = copyOfFixture("missing-shard");
    unlinkSync(join(dir, shard));
    expectSentence(await score(dir), shard);
  });

  it("names a tensor whose shape does not fit the config", async () => {
    const dir = copyOfFixture("wrong-shape");
    const config = JSON.parse(readFileSync(join(dir, "config.json"), "utf8"));
    config.hidden_size *= 2;
    writeFileSync(join(dir, "config.json"), JSON.stringify(config));
    expectSentence(await score(dir), "embed_tokens");
  });

  it("names an unsupported config value", async () => {
    const dir = copyOfFixture("unsupported");
    const config = JSON.parse(readFileSync(join(dir, "config.json"), "utf8"));
    config.hidden_act = "gelu";
    writeFileSync(join(dir, "config.json"), JSON.stringify(config));
    expectSentence(await score(dir), "hidden_act", "gelu");
  });

  it("says that serving needs a tokenizer", async () => {
    const dir = copyOfFixture("no-tokenizer");
    expect(existsSync(join(dir, "tokenizer.json"))).toBe(false);
    const result = await runCli(["serve", "--model", dir, "--port", "0"]);
    expectSentence(result, "tokenizer.json");
  });
});

describe("make-model", () => {
  it("writes a checkpoint that scores, the same for the same seed", async () => {
    const a = join(folder, "made-a");
    const b = join(folder, "made-b");
    for (const dir of [a, b]) {
      const { code, stderr } = await runCli(["make-model", "--preset", "tiny", "--seed", "7", dir]);
      expect(stderr).not.toContain("failure");
      expect(code).toBe(0);
    }
    const [first, second] = [
      await runCli(["score", "--model", a, "--tokens", "0,5,9"]),
      await runCli(["score", "--model", b, "--tokens", "0,5,9"]),
    ];
    expect(first.code).toBe(0);
    expect(first.stdout).toBe(second.stdout);
  });

  it("names the presets when asked for an unknown one", async () => {
    const { code, stderr } = await runCli(["make-model", "--preset", "huge", join(folder, "x")]);
    expect(stderr).toContain("tiny");
    expect(code).not.toBe(0);
  });
});

describe("doctor and jit", () => {
  it("prints findings as JSON", async () => {
    const { stdout } = await runCli(["doctor", "--json"]);
    const report = JSON.parse(stdout) as { findings: { subject: string }[] };
    expect(report.findings.map((finding) => finding.subject)).toContain("compiler");
  });

  it("says what to do about an unwritable cache", async () => {
    const blocked = join(folder, "a-file");
    writeFileSync(blocked, "");
    const env = { OPEN_INFRA_JIT_CACHE_DIR: join(blocked, "cache") };
    const doctor = await runCli(["doctor"], env);
    expect(doctor.stdout + doctor.stderr).toContain("OPEN_INFRA_JIT_CACHE_DIR");
    const scored = await runCli(["score", "--model", fixture, "--tokens", "0,1"], env);
    expect(scored.stderr).toContain("OPEN_INFRA_JIT_CACHE_DIR");
    expect(scored.code).toBe(1);
  });

  it("exports and imports compiled kernels", async () => {
    const bundle = join(folder, "kernels.bundle");
    const from = { OPEN_INFRA_JIT_CACHE_DIR: join(folder, "cache-a") };
    const to = { OPEN_INFRA_JIT_CACHE_DIR: join(folder, "cache-b") };
    expect((await runCli(["score", "--model", fixture, "--tokens", "0,1"], from)).code).toBe(0);
    expect((await runCli(["jit", "export", bundle], from)).code).toBe(0);
    const added = await runCli(["jit", "import", bundle, "--json"], to);
    expect(JSON.parse(added.stdout).added).toBeGreaterThan(0);
    const listed = await runCli(["jit", "list", "--json"], to);
    expect(JSON.parse(listed.stdout).entries).toHaveLength(JSON.parse(added.stdout).added);
    expect((await runCli(["jit", "clear"], to)).code).toBe(0);
    expect(JSON.parse((await runCli(["jit", "list", "--json"], to)).stdout).entries).toEqual([]);
  });
});
