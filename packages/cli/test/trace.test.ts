// `open-infra trace`: the answers a person and a pipeline get, and a sentence for each bad file.

import { spawn } from "node:child_process";
import { mkdtempSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { fileURLToPath } from "node:url";
import { gzipSync } from "node:zlib";
import { TraceRecorder } from "@open-infra/profile";
import type { TraceAnalysis, TraceDiff } from "@open-infra/profile/analyze";
import { sharedDir } from "@open-infra/testing";
import { afterAll, beforeAll, describe, expect, it } from "vitest";
import { type CliResult, runCli } from "./run-cli.ts";

const gemm = "void deep_gemm::fp8_gemm_kernel<7168>(int)";
const dispatch = "void deep_ep::internode::dispatch<false, 8, false, 8>(int4*)";

let folder = "";
beforeAll(() => {
  folder = mkdtempSync(join(tmpdir(), "open-infra-trace-"));
});
afterAll(() => rmSync(folder, { recursive: true, force: true }));

/** A GEMM beside a dispatch that outlasts it by `exposedUs`, both launched in annotations. */
function traceText(gemmUs = 1000, exposedUs = 100, name = gemm): string {
  const kernel = (name: string, stream: number, dur: number, correlation: number) => ({
    ...{ ph: "X", cat: "kernel", name, pid: 0, tid: stream, ts: 5000, dur },
    args: { stream, correlation, grid: [stream === 7 ? 112 : 20, 1, 1] },
  });
  const host = (cat: string, name: string, ts: number, dur: number, args = {}) => ({
    ...{ ph: "X", cat, name, pid: 9, tid: 9, ts, dur, args },
  });
  return JSON.stringify({
    deviceProperties: [{ id: 0, numSms: 132 }],
    traceEvents: [
      host("user_annotation", "mlp", 4000, 100),
      host("cuda_runtime", "cudaLaunchKernel", 4010, 5, { correlation: 1 }),
      host("user_annotation", "dispatch", 4200, 100),
      host("cuda_runtime", "cudaLaunchKernel", 4210, 5, { correlation: 2 }),
      kernel(name, 7, gemmUs, 1),
      kernel(dispatch, 27, gemmUs + exposedUs, 2),
    ],
  });
}

function write(name: string, content: string | Uint8Array): string {
  const file = join(folder, name);
  writeFileSync(file, content);
  return file;
}

async function analyze(...args: string[]): Promise<TraceAnalysis> {
  const { code, stdout, stderr } = await runCli(["trace", "analyze", ...args, "--json"]);
  expect(stderr).toBe("");
  expect(code).toBe(0);
  return JSON.parse(stdout) as TraceAnalysis;
}

/** Runs with `input` on standard input. */
async function runPiped(args: readonly string[], input: Uint8Array): Promise<CliResult> {
  const bin = fileURLToPath(new URL("../bin/open-infra.js", import.meta.url));
  const child = spawn(process.execPath, [bin, ...args], { stdio: ["pipe", "pipe", "pipe"] });
  let stdout = "";
  let stderr = "";
  child.stdout.on("data", (piece: Buffer) => {
    stdout += piece.toString();
  });
  child.stderr.on("data", (piece: Buffer) => {
    stderr += piece.toString();
  });
  child.stdin.end(input);
  const code = await new Promise<number | null>((resolve) => child.on("close", resolve));
  return { code, stdout, stderr };
}

describe("trace analyze", () => {
  it("answers a person in the first line", async () => {
    const file = write("person.json", traceText());
    const { code, stdout, stderr } = await runCli(["trace", "analyze", file]);
    expect(stderr).toBe("");
    expect(code).toBe(0);
    expect(stdout.split("\n")[0]).toBe(
      "1,100 µs from first to last, 100.0 % busy. 90.9 % of 1,100 µs communication is hidden, " +
        "100 µs exposed. Full overlap would save 0 µs (0.0 %).",
    );
    expect(stdout).toContain("multiprocessors of 132: 20 communicate, 112 compute");
    expect(stdout).toMatch(/ep_dispatch +DeepEP +1 +1,100 +52\.4 % +90\.9 % +100/);
    expect(stdout).toMatch(/^mlp +1 +1,000/m);
  });

  it("prints one JSON document, from files, gzip and standard input alike", async () => {
    const text = traceText();
    const plain = await analyze(write("plain.json", text));
    expect(plain.summary).toMatchObject({ spanUs: 1100, overlapUs: 1000, overlapPercent: 90.91 });
    expect(await analyze(write("packed.json.gz", gzipSync(text)))).toEqual(plain);
    const piped = await runPiped(["trace", "analyze", "-", "--json"], gzipSync(text));
    expect(JSON.parse(piped.stdout)).toEqual(plain);
  });

  it("takes a user's rules, a part of the time, a device, a number of kernels", async () => {
    const file = write("options.json", traceText());
    const rules = write(
      "rules.json",
      '[{ "match": "fp8_gemm", "class": "mine", "group": "other", "family": "us" }]',
    );
    const mine = await analyze(file, "--rules", rules);
    expect(mine.summary).toMatchObject({ computeUs: 0, otherUs: 1000 });
    // The table counts from the first event, 1,000 µs before the kernels.
    const part = await analyze(file, "--from-us", "1990", "--to-us", "2050", "--top", "1");
    expect(part.summary).toMatchObject({ spanUs: 60, overlapUs: 10 });
    expect(part.kernels.kernels).toHaveLength(1);
    expect(part.kernels.kernelNames).toBe(2);
    expect((await analyze(file, "--device", "0")).events).toBe(2);
    const absent = await runCli(["trace", "analyze", file, "--device", "3"]);
    expect(absent.stderr).toContain("nothing ran on --device 3; pids are 0, 9");
    expect(absent.code).toBe(2);
  });

  it("makes do with lanes where nothing ran on a device", async () => {
    const recorder = new TraceRecorder({ processName: "server" });
    recorder.span("engine", "step", 1000, undefined, 100);
    recorder.span("engine", "forward", 1000, undefined, 80);
    recorder.span("engine", "sample", 1080, undefined, 20);
    const file = write("own.json", JSON.stringify(recorder));
    const own = await analyze(file);
    expect(own).toMatchObject({ source: "lanes", events: 2, summary: { spanUs: 100 } });
    const { stdout, code } = await runCli(["trace", "analyze", file]);
    expect(stdout).toContain("No communication.");
    expect(stdout).toContain("note: nothing ran on a device in this trace");
    expect(code).toBe(0);
  });

  it("says so where there is nothing", async () => {
    const { stdout, code } = await runCli([
      ...["trace", "analyze", write("empty.json", '{"traceEvents":[]}')],
    ]);
    expect(stdout).toContain("Nothing to analyse.");
    expect(code).toBe(0);
  });

  it("names what is wrong with a file, and exits 2", async () => {
    const cut = traceText().slice(0, -40);
    const files: readonly [string, string, RegExp][] = [
      ["text.json", "hello", /text\.json: .*byte 0/],
      ["cut.json", cut, /cut\.json: .*; --tolerant keeps them .*traceEvents\[5\]/],
      ["other.json", '{"a": 1}', /other\.json: .*traceEvents/],
      ["none.json", "", /none\.json: the trace is empty/],
    ];
    for (const [name, content, message] of files) {
      const { code, stdout, stderr } = await runCli(["trace", "analyze", write(name, content)]);
      expect(stderr).toMatch(message);
      expect(stderr).not.toContain("unexpected failure");
      expect([code, stdout]).toEqual([2, ""]);
    }
    const tolerant = await analyze(join(folder, "cut.json"), "--tolerant");
    expect(tolerant.events).toBe(1);
    expect(tolerant.warnings[0]).toContain("only the beginning was read");
  });

  it.each([
    [["no-such-file.json"], "cannot read no-such-file.json: ENOENT"],
    [[tmpdir()], "is a folder"],
    [["x.json", "--rules", "no-rules.json"], "cannot read no-rules.json: ENOENT"],
    [["x.json", "--from-us", "5", "--to-us", "5"], "--from-us 5 is not before --to-us 5"],
    [["x.json", "--from-us", "-1"], "'-1' is not a number from 0 on"],
  ])("%j exits 2 and says why", async (args, message) => {
    const { code, stderr } = await runCli(["trace", "analyze", ...args]);
    expect(stderr).toContain(message);
    expect(code).toBe(2);
  });

  it("names the file of rules that cannot be used, and where", async () => {
    for (const [content, message] of [
      ['[{"match": "x", "class": "y"}]', "bad.json: rules[0].group is missing"],
      ['[{"match": "x",]', 'bad.json is not JSON: unexpected "]" at line 1, column 16'],
    ] as const) {
      const args = ["x.json", "--rules", write("bad.json", content)];
      const { code, stderr } = await runCli(["trace", "analyze", ...args]);
      expect(stderr).toContain(message);
      expect(code).toBe(2);
    }
  });
});

describe("trace diff", () => {
  it("passes equal traces with 0 and fails a regression with 3", async () => {
    const before = write("before.json", traceText(1000, 100));
    const after = write("after.json", traceText(1000, 400));
    const same = await runCli(["trace", "diff", before, before]);
    expect(same.stdout).toMatch(/^PASS: nothing slower by more than 5 % and 50 µs/);
    expect(same.code).toBe(0);
    const worse = await runCli(["trace", "diff", before, after]);
    expect(worse.stdout).toMatch(/^FAIL: communicationUs \+300 µs and 3 more beyond/);
    expect(worse.stdout).toMatch(/ep_dispatch +1,100 +1,400 +\+300 +\+27\.3 % +slower/);
    expect(worse.stderr).toBe("");
    expect(worse.code).toBe(3);
    const better = await runCli(["trace", "diff", after, before]);
    expect([better.code, better.stdout.slice(0, 4)]).toEqual([0, "PASS"]);
  });

  it("takes its thresholds and kinds from the command line", async () => {
    const before = write("a.json", traceText(1000, 0));
    const after = write("b.json", traceText(1100, 0, "void deep_gemm::fp8_gemm_kernel<1>(int)"));
    const run = (...args: string[]) => runCli(["trace", "diff", before, after, ...args]);
    expect((await run("--fail-above", "10%")).code).toBe(0);
    expect((await run("--fail-above", "9.5")).code).toBe(3);
    expect((await run("--noise-us", "100")).code).toBe(0);
    expect((await run("--fail-on", "kernel", "--fail-above", "1%")).code).toBe(3);
    const { stdout, code } = await run("--json");
    const diff = JSON.parse(stdout) as TraceDiff;
    expect(code).toBe(3);
    expect(diff.verdict).toBe("fail");
    expect(diff.kernels.find(({ renamedFrom }) => renamedFrom === gemm)?.deltaUs).toBe(100);
  });

  it("takes a saved analysis for either side", async () => {
    const trace = write("c.json", traceText(1000, 400));
    const { stdout } = await runCli([
      ...["trace", "analyze", write("d.json", traceText(1000, 100)), "--json"],
    ]);
    const saved = write("baseline.json", stdout);
    expect((await runCli(["trace", "diff", saved, trace])).code).toBe(3);
    expect((await runCli(["trace", "diff", trace, saved])).code).toBe(0);
  });

  it("exits 2 where there is nothing to compare", async () => {
    const good = write("good.json", traceText());
    const cases: readonly [string, string][] = [
      [write("nothing.json", "[]"), "nothing.json has nothing to compare"],
      [write("bad.json", "{"), "bad.json: "],
      [write("old.json", '{"schema": 99}'), "old.json: schema is 99; expected 1"],
      [write("half.json", '{"schema": 1}'), "half.json: not an analysis"],
    ];
    for (const [file, message] of cases) {
      const { code, stderr } = await runCli(["trace", "diff", good, file]);
      expect(stderr).toContain(message);
      expect(code).toBe(2);
    }
    const both = await runCli(["trace", "diff", "-", "-"]);
    expect([both.code, both.stderr]).toEqual([
      2,
      expect.stringContaining("only one side can be standard input"),
    ]);
  });
});

const data = sharedDir("data");

describe.skipIf(data === undefined)("the published training trace", () => {
  const file = join(data ?? "", "deepseek-train-trace.json");

  it("is answered in one line, and passes against itself", async () => {
    const { stdout } = await runCli(["trace", "analyze", file]);
    expect(stdout.split("\n")[0]).toBe(
      "129 ms from first to last, 99.6 % busy. 96.3 % of 113 ms communication is hidden, " +
        "4,190 µs exposed. Full overlap would save 4,190 µs (3.2 %).",
    );
    expect((await runCli(["trace", "diff", file, file])).code).toBe(0);
  });

  it("fails once its longest combine kernel takes twice as long", async () => {
    const trace = JSON.parse(readFileSync(file, "utf8")) as {
      traceEvents: { name: string; dur?: number }[];
    };
    const combines = trace.traceEvents.filter(({ name }) => name.includes("internode::combine<"));
    for (const event of combines) event.dur = 2 * (event.dur as number);
    const slower = write("slower.json", JSON.stringify(trace));
    const { code, stdout } = await runCli(["trace", "diff", file, slower, "--json"]);
    expect(code).toBe(3);
    const diff = JSON.parse(stdout) as TraceDiff;
    const [first] = diff.kernels;
    expect(first?.name).toContain("internode::combine<");
    expect([first?.beforeUs, first?.afterUs, first?.afterCount]).toEqual([49_448, 98_896, 8]);
  });
});
