// `open-infra eplb` as a user runs it. Most cases run the whole application in this process, with
// streams of the test's own; some start the command itself. What is computed is tested in eplb.

import { spawn } from "node:child_process";
import { mkdtempSync, rmSync, truncateSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { fileURLToPath } from "node:url";
import { ExitCode, run } from "@stricli/core";
import { afterAll, beforeAll, describe, expect, it } from "vitest";
import { app } from "../src/app.ts";
import type { CliContext } from "../src/context.ts";
import { type CliResult, runCli } from "./run-cli.ts";

let dir = "";
beforeAll(() => {
  dir = mkdtempSync(join(tmpdir(), "open-infra-eplb-"));
});
afterAll(() => rmSync(dir, { recursive: true, force: true }));

function file(name: string, content: unknown): string {
  const path = join(dir, name);
  writeFileSync(path, typeof content === "string" ? content : JSON.stringify(content));
  return path;
}

/** Runs the application here; `stdin` undefined is a terminal. */
async function eplb(args: readonly string[], stdin?: string): Promise<CliResult> {
  let [stdout, stderr] = ["", ""];
  const process = {
    env: {},
    exitCode: undefined as number | undefined,
    stdout: { write: (text: string) => void (stdout += text) },
    stderr: { write: (text: string) => void (stderr += text) },
    stdin: stdin === undefined ? { isTTY: true } : pieces(stdin),
  };
  await run(app, ["eplb", ...args], { process } as unknown as CliContext);
  // As main.ts does it.
  const code = process.exitCode === ExitCode.InvalidArgument ? 2 : (process.exitCode ?? 0);
  return { code, stdout, stderr };
}

/** A pipe that hands out a few bytes at a time, cutting characters. */
async function* pieces(text: string): AsyncGenerator<Uint8Array> {
  const bytes = Buffer.from(text);
  for (let at = 0; at < bytes.length; at += 7) yield bytes.subarray(at, at + 7);
}

const weight = [
  [90, 132, 40, 61, 104, 165, 39, 4, 73, 56, 183, 86],
  [20, 107, 104, 64, 19, 197, 187, 157, 172, 86, 16, 27],
];
const cluster = "--num-replicas 16 --num-groups 4 --num-nodes 2 --num-gpus 8".split(" ");
/** The original's README: phy2log of these loads. */
const published = [
  [5, 6, 5, 7, 8, 4, 3, 4, 10, 9, 10, 2, 0, 1, 11, 1],
  [7, 10, 6, 8, 6, 11, 8, 9, 2, 4, 5, 1, 5, 0, 3, 1],
];

describe("eplb rebalance", () => {
  it("prints the published placement as one JSON document", async () => {
    const args = ["rebalance", "--file", file("w.json", weight), ...cluster, "--json"];
    const { code, stdout, stderr } = await eplb(args);
    expect({ code, stderr }).toEqual({ code: 0, stderr: "" });
    const result = JSON.parse(stdout);
    expect(result).toMatchObject({ policy: "deepseek", numLayers: 2, numGpus: 8 });
    expect(result.phy2log).toEqual(published);
    expect(result.logcnt[0]).toEqual([1, 2, 1, 1, 2, 2, 1, 1, 1, 1, 2, 1]);
    expect(result.log2phy[0].slice(0, 3)).toEqual([
      [12, -1],
      [15, 13],
      [11, -1],
    ]);
    expect(result.report.layers[0].maxLoad).toBe(156);
    expect(result.report.layers[0].gpuLoads).toHaveLength(8);
  });

  it.each([
    ["rows", JSON.stringify(weight)],
    ["an object", JSON.stringify({ weight })],
    ["a byte order mark and spaces", `\uFEFF \n ${JSON.stringify(weight)}\n`],
  ])("takes %s from standard input", async (_, stdin) => {
    const { code, stdout } = await eplb(["rebalance", ...cluster, "--json"], stdin);
    expect(code).toBe(0);
    expect(JSON.parse(stdout).phy2log).toEqual(published);
    const dash = await eplb(["rebalance", "--file", "-", ...cluster, "--json"], stdin);
    expect(dash.stdout).toBe(stdout);
  });

  it("takes one row as one layer", async () => {
    const { stdout } = await eplb(["rebalance", ...cluster, "--json"], JSON.stringify(weight[0]));
    expect(JSON.parse(stdout).phy2log).toEqual([published[0]]);
  });

  it("reads its own output as --from, and counts what moves", async () => {
    const first = await eplb(["rebalance", ...cluster, "--json"], JSON.stringify(weight));
    const old = file("old.json", first.stdout);
    const drifted = JSON.stringify(weight.map((row) => row.map((x, i) => x * (1 + (i % 3) / 50))));
    const args = ["rebalance", "--from", old, ...cluster, "--json"];
    const { code, stdout } = await eplb(args, drifted);
    expect(code).toBe(0);
    const { policy, report, before, phy2log } = JSON.parse(stdout);
    expect(policy).toBe("minimal-migration");
    expect(report.worstMaxOverMean).toBeLessThanOrEqual(before.worstMaxOverMean);
    const changed = phy2log.flat().filter((x: number, i: number) => x !== published.flat()[i]);
    expect(report.movedSlots).toBe(changed.length);
    const none = await eplb([...args, "--max-moved-slots", "0"], drifted);
    expect(JSON.parse(none.stdout).report.movedSlots).toBe(0);
    const rows = await eplb(
      ["rebalance", "--from", file("rows.json", published), ...cluster],
      drifted,
    );
    expect(rows.stdout).toContain(`${report.movedSlots} of 32 slots`);
    expect(rows.stdout).toMatch(/ duplicates +before +moved\n/);
  });

  it("keeps a migration within a budget of bytes", async () => {
    const old = file("old.json", published);
    const flags = ["--from", old, ...cluster, "--json", "--bytes-per-expert", "42MiB"];
    const swapped = JSON.stringify(weight.map((row) => row.toReversed()));
    const free = await eplb(["rebalance", ...flags, "--max-moved-bytes", "10GiB"], swapped);
    expect(JSON.parse(free.stdout).report.movedSlots).toBeGreaterThan(3);
    const bound = await eplb(["rebalance", ...flags, "--max-moved-bytes", "150MiB"], swapped);
    expect(JSON.parse(bound.stdout).report.movedSlots).toBeLessThanOrEqual(3);
    const alone = await eplb(["rebalance", ...flags], swapped);
    expect(alone.stderr).toContain("--max-moved-bytes and --bytes-per-expert go together");
    expect(alone.code).toBe(2);
  });

  it("shows small loads with their digits, and one thing in the singular", async () => {
    const shares = JSON.stringify([0.011, 0.022, 0.033, 0.044]);
    const { stdout } = await eplb("rebalance --num-replicas 6 --num-gpus 2".split(" "), shares);
    expect(stdout).toContain("1 layer, 4 experts in 6 slots, 2 GPUs, 1 node, 1 group\n");
    expect(stdout).toMatch(/\n +0 +0\.0\d{4} +0\.05500 /);
  });

  it("prints a table for people", async () => {
    const { stdout } = await eplb(["rebalance", ...cluster], JSON.stringify(weight));
    expect(stdout).toMatch(/layer +max +mean +max\/mean +bound +gap +duplicates\n/);
    expect(stdout).toMatch(/\n +0 +156\.0 +129\.1 +1\.2081 +151\.0 +3\.31 % +0\n/);
    expect(stdout).toContain("moved         not known");
  });

  it.each([
    ["[[1, NaN]]", "standard input is not JSON: NaN at line 1, column 6; JSON has no such value"],
    ["[[1, 2],\n [-Infinity, 1]]", "-Infinity at line 2, column 3"],
    ["[[1,2],[3]]", "weight[1] is a row of 1; expected a row of 2, as weight[0] is"],
    ["[[1,-2]]", "weight[0][1] is -2; expected a finite number"],
    ["[[1,2,3,null]]", "weight[0][3] is null"],
    ['[[1,"2"]]', 'weight[0][1] is "2"'],
    ["[1e999, 1]", "weight[0][0] is Infinity"],
    ["[[1,2", "it ends too early, at line 1, column 6"],
    ["[[1,2]] x", 'unexpected "x" at line 1, column 9'],
    ["[[01]]", 'unexpected "1]]" at line 1, column 4'],
    ['{"weight": [1,]}', 'unexpected "]}" at line 1, column 15'],
    ['["a\tb"]', "at line 1, column 2"],
    ["", "standard input is empty: give the loads as --file W.json"],
    ["[]", "weight is no rows"],
    ["[[],[]]", "weight[0] is an empty row"],
    ["[[1,2],null]", "weight[1] is null"],
    ["[1,[2]]", "weight[0] is 1; expected a row of loads"],
    ["7", "standard input holds no rows; expected [[…], …]"],
    ['{"loads": [[1]]}', "standard input has no weight"],
    ['{"weight": 3}', "standard input holds no rows"],
  ])("says what is wrong with %s", async (stdin, message) => {
    const args = ["rebalance", "--num-replicas", "4", "--num-gpus", "2"];
    const { code, stdout, stderr } = await eplb(args, stdin);
    expect(stderr).toContain(message);
    expect({ code, stdout }).toEqual({ code: 2, stdout: "" });
  });

  it.each([
    ["--num-replicas 15 --num-gpus 8", "--num-replicas is 15; expected a multiple of --num-gpus 8"],
    ["--num-replicas 8 --num-gpus 8", "at least one slot for each of the 12 experts"],
    ["--num-replicas 20 --num-gpus 5 --num-nodes 5 --num-groups 5", "12 % 5 = 2"],
    ["--num-replicas 15 --num-gpus 5 --num-nodes 2 --num-groups 4", "--num-gpus is 5; expected a"],
    ["--num-replicas 16 --num-gpus 0", "'0' is not a whole number"],
    ["--num-gpus 8", "--num-replicas"],
    ["--num-replicas 16 --num-gpus 8 --policy best", "best"],
    ["--num-replicas 16 --num-gpus 8 --policy minimal-migration", "give --from OLD.json"],
    ["--num-replicas 16 --num-gpus 8 --target 1.1", "--target is for --policy minimal-migration"],
  ])("says which constraint fails: %s", async (args, message) => {
    const { code, stderr } = await eplb(["rebalance", ...args.split(" ")], JSON.stringify(weight));
    expect(stderr).toContain(message);
    expect(code).toBe(2);
  });

  it.each([
    [[[0, 1]], "phy2log[0] is a row without expert 2"],
    [[[0, 1, 99]], "phy2log[0][2] is 99; expected an expert from 0 to 11"],
    [[[0], [1, 2]], "phy2log[1] is a row of 2; expected a row of 1"],
    [{ slots: 1 }, "phy2log is undefined"],
    [published.slice(1), "from.numLayers is 1"],
    ["[[1", "it ends too early"],
  ])("says what is wrong with --from %j", async (old, message) => {
    const from = file("bad-old.json", old);
    const args = ["rebalance", "--from", from, ...cluster, "--policy", "optimized"];
    const { code, stderr } = await eplb(args, JSON.stringify(weight));
    expect(stderr).toContain(message);
    expect(stderr).toContain("bad-old.json");
    expect(code).toBe(2);
  });

  it("refuses what cannot be read", async () => {
    const read = async (...args: string[]) => eplb(["rebalance", ...cluster, ...args]);
    expect((await read("--file", join(dir, "none.json"))).stderr).toContain("none.json: ENOENT");
    expect((await read("--file", dir)).stderr).toContain("is a folder; name a JSON file");
    const huge = file("huge.json", "[");
    truncateSync(huge, 3 * 2 ** 30);
    expect((await read("--file", huge)).stderr).toContain("3.0 GiB; at most 256.0 MiB can be read");
    const both = await eplb(["rebalance", ...cluster, "--from", "-"], "[[1]]");
    expect(both.stderr).toContain("standard input cannot be both --file and --from");
    // Nobody types a matrix; a command that waits for one in silence looks hung.
    const terminal = await read();
    expect(terminal.stderr).toContain("nothing is piped into standard input");
    expect(terminal.code).toBe(2);
  });

  it("runs as a command at the end of a pipe", async () => {
    const bin = fileURLToPath(new URL("../bin/open-infra.js", import.meta.url));
    const child = spawn(process.execPath, [bin, "eplb", "rebalance", ...cluster, "--json"]);
    let stdout = "";
    child.stdout.on("data", (chunk: Buffer) => {
      stdout += chunk.toString();
    });
    child.stdin.end(JSON.stringify(weight));
    const code = await new Promise((resolve) => child.on("close", resolve));
    expect(code).toBe(0);
    expect(JSON.parse(stdout).phy2log).toEqual(published);
    const bad = await runCli([
      "eplb",
      "rebalance",
      ...cluster,
      "--file",
      file("nan.json", "[NaN]"),
    ]);
    expect(bad.code).toBe(2);
    expect(bad.stderr).toContain("nan.json is not JSON: NaN at line 1, column 2");
  });
});

describe("eplb simulate", () => {
  const small = "--num-layers 2 --num-logical 16 --num-replicas 24 --num-groups 4 --num-nodes 2";
  const made = [...small.split(" "), "--num-gpus", "4", "--num-steps", "200"];

  it("replays a made-up load as one JSON document, the same for the same seed", async () => {
    const args = ["simulate", ...made, "--scenario", "shift", "--seed", "3", "--json"];
    const { code, stdout, stderr } = await eplb(args);
    expect({ code, stderr }).toEqual({ code: 0, stderr: "" });
    expect((await eplb(args)).stdout).toBe(stdout);
    const result = JSON.parse(stdout);
    expect(result.trace).toEqual({ numLayers: 2, numLogical: 16, numSteps: 200 });
    expect(result.windows).toHaveLength(20);
    expect(result.controller.maxOverMean).toBeLessThan(result.fixed.maxOverMean);
    expect(result.metrics.plansCompleted).toBeGreaterThan(0);
    // The final placement is one that rebalance takes as the old one.
    const old = file("final.json", stdout);
    const loads = JSON.stringify([Array(16).fill(1), Array(16).fill(1)]);
    const clusterArgs = "--num-replicas 24 --num-groups 4 --num-nodes 2 --num-gpus 4".split(" ");
    expect((await eplb(["rebalance", "--from", old, ...clusterArgs], loads)).code).toBe(0);
  });

  it("prints a table, sparklines and totals for people", async () => {
    const args = ["--bytes-per-expert", "1048576", "--max-bytes-per-step", "4194304"];
    const { stdout } = await eplb(["simulate", ...made, ...args, "--fail", "100:1"]);
    expect(stdout).toMatch(/step +never moved +fresh +controller +moved/);
    expect(stdout).toMatch(/controller +[▁▂▃▄▅▆▇█]{20}\n/);
    expect(stdout).toContain("copied    4.0 MiB at most a step");
    expect(stdout).toContain("step 100: GPU 1 failed");
  });

  it("replays a recorded trace, as JSON or as lines", async () => {
    const step = (hot: number): number[][] => [
      [1, 2, 3, 4].map((x, i) => (i === hot ? 40 : x)),
      [4, 3, 2, 1],
    ];
    const steps = Array.from({ length: 30 }, (_, i) => step(i < 15 ? 0 : 3));
    const args = ["--num-replicas", "6", "--num-gpus", "2", "--interval", "4", "--json"];
    const json = await eplb(["simulate", "--file", file("trace.json", { steps }), ...args]);
    expect(json.stderr).toBe("");
    expect(JSON.parse(json.stdout).trace).toEqual({ numLayers: 2, numLogical: 4, numSteps: 30 });
    const header = JSON.stringify({ numLayers: 2, numLogical: 4 });
    const lines = [header, ...steps.map((one) => JSON.stringify(one)), ""].join("\n");
    const piped = await eplb(["simulate", "--file", "-", ...args], lines);
    expect(piped.stdout).toBe(json.stdout);
  });

  it.each([
    ["--interval 0", "'0' is not a whole number"],
    ["--start-above 1.1 --stop-below 1.2", "--stop-below is 1.2; expected at most --start-above"],
    ["--max-bytes-per-step 0.5", "--max-bytes-per-step is 0.5; expected at least"],
    ["--num-logical 24", "without a redundant slot nothing can be overwritten in place"],
    ["--num-replicas 25", "--num-replicas is 25; expected a multiple of --num-gpus 4"],
    ["--scenario drift --change 2", "--change is 2; expected a share below 1 for drift"],
    ["--hot-experts 17 --scenario burst", "--hot-experts is 17; expected at most the 16 experts"],
    ["--hot-experts 2", "--hot-experts is for --scenario burst, not drift"],
    ["--popularity uniform --skew 2", "--skew is for --popularity zipf or lognormal"],
    ["--skew 1000", "--skew is 1000; expected less"],
    ["--tokens 1e300", "--tokens is 1e+300; expected a number from 0 to 9007199254740992"],
    ["--num-layers 2147483648", "--num-layers is 2147483648 layers × 16 experts"],
    ["--scenario shift --at 200", "--at is 200; expected a step before --num-steps, 200"],
    ["--fail 10", "--fail '10' is not two numbers"],
    ["--fail 10:9", "--fail 10:9 is for GPU 9; expected a GPU from 0 to 3"],
    ["--fail 999:1", "--fail 999:1 is for step 999; expected a step from 0 to 199"],
    ["--ema 5 --window 5", "give one"],
    ["--file t.json --seed 3", "--seed is for a load that is made up"],
  ])("says what is wrong with %s", async (extra, message) => {
    const flags = new Map<string, string>();
    const all = [...(extra.startsWith("--file") ? [] : made), ...extra.split(" ")];
    for (let i = 0; i < all.length; i += 2) flags.set(all[i] as string, all[i + 1] as string);
    const { code, stderr } = await eplb(["simulate", ...[...flags].flat()]);
    expect(stderr).toContain(message);
    expect(code).toBe(2);
  });

  it.each([
    [{ steps: [] }, "steps is an array of 0; expected an array that is not empty"],
    [{ steps: [[[1, 2]], [[1]]] }, "steps[1][0] is an array of 1; expected an array of 2"],
    [{ steps: [[[1, -2]]] }, "steps[0][0][1] is -2"],
    [{ steps: [[[1, null]]] }, "steps[0][0][1] is null"],
    [{ numLayers: 3, steps: [[[1, 2]]] }, "numLayers is 3; expected 1"],
    [{ loads: 1 }, "trace is an object without steps"],
    ['[[[1,2]],[[1,"NaN"]]]', 'steps[1][0][1] is "NaN"'],
    ["[[1,2]]\n[[1,oops]]\n", "line 2 of "],
  ])("says what is wrong with the trace %j", async (content, message) => {
    const path = file("bad-trace.json", content);
    const args = ["--num-replicas", "4", "--num-gpus", "2"];
    const { code, stderr } = await eplb(["simulate", "--file", path, ...args]);
    expect(stderr).toContain(message);
    expect(stderr).toContain("bad-trace.json");
    expect(code).toBe(2);
  });

  it("needs a cluster for a recorded trace", async () => {
    const { code, stderr } = await eplb(["simulate", "--file", file("t.json", [[[1, 2]]])]);
    expect(stderr).toContain("with --file the cluster is needed: --num-replicas N --num-gpus N");
    expect(code).toBe(2);
  });
});

it("help names the commands and their flags", async () => {
  expect((await eplb(["--help"])).stdout).toMatch(/rebalance[\s\S]*simulate/);
  expect((await eplb(["rebalance", "--help"])).stdout).toContain("--max-moved-slots");
  expect((await eplb(["simulate", "--help"])).stdout).toContain("--max-bytes-per-step");
});
