// `open-infra dualpipe simulate` and `plan` as a user runs them. The figures are tested in their
// package; here it is flags, files, what is printed where, and exit statuses.

import { mkdtempSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterAll, beforeAll, describe, expect, it } from "vitest";
import { runCli } from "./run-cli.ts";

let dir: string;
beforeAll(() => {
  dir = mkdtempSync(join(tmpdir(), "open-infra-dualpipe-simulate-"));
});
afterAll(() => rmSync(dir, { recursive: true, force: true }));

const fileOf = (name: string, value: unknown): string => {
  const path = join(dir, name);
  writeFileSync(path, typeof value === "string" ? value : JSON.stringify(value));
  return path;
};

describe("dualpipe simulate", () => {
  const simulate = (...args: string[]) => runCli(["dualpipe", "simulate", ...args]);
  const size = ["--num-ranks", "8", "--num-micro-batches", "20"];
  const unit = ["--f", "1", "--b", "2", "--w", "1", "--fb", "3"];

  it("prints one JSON document with the formula beside the simulation", async () => {
    const { code, stdout, stderr } = await simulate(...size, ...unit, "--latency", "0.1", "--json");
    expect(stderr).toBe("");
    expect(code).toBe(0);
    const document = JSON.parse(stdout);
    expect(document).toMatchObject({
      schedule: "dualpipe",
      numRanks: 8,
      numStages: 8,
      numDirections: 2,
      numMicroBatches: 20,
      mode: "dataflow",
      times: { F: 1, B: 2, W: 1, FB: 3 },
      communication: { latency: 0.1 },
      formula: { bubble: 6, makespan: 66, exact: true },
    });
    expect(document.makespan).toBeCloseTo(68.6, 10);
    expect(document.ranks).toHaveLength(8);
    expect(document.ranks[3]).toMatchObject({ rank: 3, busy: 60, peakActivations: 9 });
    const { idle, warmUp, steady, coolDown, byPhase, afterEnd } = document.ranks[3];
    expect(warmUp + steady + coolDown).toBeCloseTo(idle, 10);
    expect(byPhase.reduce((a: number, b: number) => a + b, afterEnd)).toBeCloseTo(idle, 10);
    expect(document.lowerBound.makespan + document.lowerBound.gap).toBe(document.makespan);
    expect(document.criticalPath.steps.at(-1).end).toBe(document.makespan);
  });

  it("prints timeline, tables, formula and bound for people", async () => {
    const { code, stdout } = await simulate("-s", "zb1p", "-r", "2", "-m", "2");
    expect(code).toBe(0);
    const rows = stdout.split("\n");
    expect(rows.find((row) => row.startsWith("rank 0 |"))).toMatch(
      /^rank 0 \|F0-+F1-+\.+I0-+W0-+I1-+W1-+\|$/,
    );
    expect(
      rows.filter((row) => !row.includes("|") && !/^ +0 +7$/.test(row)).join("\n"),
    ).toBe(`zb1p: 2 ranks, 2 stages, 2 micro-batches
times          F 1, B 2


rank  busy  idle  warm-up  steady  cool-down  held  until W
0        6     1        1       0          0     2        2
1        6     1        1       0          0     1        2

idle before  step 1  step 2  step 3  the end
rank 0            0       1       0        0
rank 1            0       1       0        0

makespan       7, of it idle 14.3 %
formula        (P − 1)(F + B − 2W): idle 1, makespan 7; simulated idle 1, makespan 7
               without transfers exact when F = B − W = W and M ≥ P: so here
lower bound    7 (rank 0: 3 before, 4 of work, 0 after); gap 0.0 %
critical path  7 operations, 2 changes of rank: 7 of computation, 0 of transfers
`);
  });

  it("takes uneven stages, links and memory from a file", async () => {
    const file = fileOf("times.json", {
      F: [1, 1, 1, 2],
      B: [2, 2, 2, 4],
      communication: { latency: { ranksPerNode: 2, intraNode: 0, interNode: 1 } },
      memory: { activationBytes: 1024, parameterBytes: 2048 },
    });
    const args = ["-s", "1f1b", "-r", "4", "-m", "4", "--stage-times", file];
    const { code, stdout } = await simulate(...args, "--json");
    expect(code).toBe(0);
    const { makespan, ranks, formula } = JSON.parse(stdout);
    // Three forwards and a hop before the last rank, which works 4 · 6, a hop and three backwards.
    expect(makespan).toBe(3 + 1 + 24 + 1 + 6);
    expect(ranks.map((rank: { peakBytes: number }) => rank.peakBytes)).toEqual([
      6144, 5120, 4096, 3072,
    ]);
    expect(formula).toBeUndefined();
    const text = await simulate(...args);
    expect(text.stdout).toContain("F 1 to 2, B 2 to 4");
    expect(text.stdout).toContain("6.0 KiB");
  });

  it("agrees with itself in rendezvous", async () => {
    const { stdout } = await simulate(...size, ...unit, "--mode", "rendezvous", "--json");
    expect(JSON.parse(stdout)).toMatchObject({ makespan: 66, mode: "rendezvous" });
  });

  it("writes picture and trace, and compares with a trace", async () => {
    const [svg, trace] = [join(dir, "a.svg"), join(dir, "a.json")];
    const files = ["--svg", svg, "--trace", trace, "--us-per-unit", "1000"];
    const written = await simulate(...size, ...unit, ...files, "--latency", "0.1", "--json");
    expect(written.code).toBe(0);
    expect(written.stderr).toBe(`wrote ${svg}\nwrote ${trace}\n`);
    JSON.parse(written.stdout);
    expect(readFileSync(svg, "utf8")).toMatch(/^<svg xmlns.*<\/svg>$/s);
    const events = JSON.parse(readFileSync(trace, "utf8")).traceEvents as { ph: string }[];
    expect(events.filter(({ ph }) => ph === "X").length).toBeGreaterThan(200);

    const { code, stdout } = await simulate(...size, "--from-trace", trace, "--json");
    expect(code).toBe(0);
    const { makespan, measured } = JSON.parse(stdout);
    expect(makespan).toBeCloseTo(66_000, 6);
    expect(measured.measuredMakespan).toBeCloseTo(68_600, 6);
    expect(measured.ratio).toBeCloseTo(68.6 / 66, 10);
    const text = await simulate(...size, "--from-trace", trace);
    expect(text.stdout).toContain("measured       68600 µs (1 step): 1.039 of the simulation");
  });

  it("says who waits for whom where a schedule waits for itself", async () => {
    const file = fileOf("stuck.json", {
      format: "open-infra-schedule",
      version: 1,
      name: "custom",
      numRanks: 2,
      numStages: 2,
      microBatchesOf: [1],
      rankOf: [[0, 1]],
      hasCommunication: false,
      ops: [
        [
          ["F", [0, 0], 0],
          ["B", [0, 0], 0],
        ],
        [
          ["B", [0, 1], 0],
          ["F", [0, 1], 0],
        ],
      ],
    });
    const { code, stdout, stderr } = await simulate("--file", file);
    expect(stdout).toBe("");
    expect(code).toBe(1);
    expect(stderr).toContain("rank 1 at operation 0, B of direction 0, stage 1, micro-batch 0");
  });

  it("refuses with the reason and status 2", async () => {
    const wrong = fileOf("wrong.json", { F: 1, B: 2, Z: 3 });
    const cases: [string[], string][] = [
      [
        ["--num-ranks", "7", "--num-micro-batches", "20"],
        "--num-ranks is 7; expected an even number",
      ],
      [[...size, "--f", "-1"], "'-1' is not a number from 0 on"],
      [[...size, "--stage-times", wrong], "has the field Z; known are F, B, I"],
      [
        [...size, "--stage-times", fileOf("link.json", { F: 1, B: 2, communication: { lag: 1 } })],
        "communication has the field lag; known are latency, bandwidth",
      ],
      [[...size, "--stage-times", wrong, "--f", "1"], "--stage-times brings all times"],
      [[...size, "--bytes", "5 apples"], "'5 apples' is not a number of bytes"],
      [[...size, "--bytes", "5MB"], "--bandwidth and --bytes go together"],
      [[...size, "--exclusive-links"], "--exclusive-links needs --bandwidth and --bytes"],
      [
        [...size, "--bytes", "1", "--bandwidth", "1", "--exclusive-links", "--mode", "rendezvous"],
        "--exclusive-links is true; expected false in rendezvous mode",
      ],
      [[...size, "--w", "3"], "--time-w is 3; expected at most --time-b, 2"],
      [[...size, "--stage-times", fileOf("f.json", { F: [1, 2], B: 2 })], "f.json: times.F.length"],
      [[...size, "--from-trace", fileOf("none.json", {})], "has no traceEvents"],
      [[...size, "--from-trace", fileOf("other.json", [])], "other.json: the trace has 0 spans"],
      [[...size, "--trace", "-"], "needs a file"],
      [[...size, "--svg", join(dir, "no", "such.svg")], "cannot write"],
    ];
    for (const [args, message] of cases) {
      const { code, stdout, stderr } = await simulate(...args);
      expect(stderr, args.join(" ")).toContain(message);
      expect(stdout, args.join(" ")).toBe("");
      expect(code, args.join(" ")).toBe(2);
    }
  });
});

describe("dualpipe plan", () => {
  const plan = (...args: string[]) => runCli(["dualpipe", "plan", ...args]);
  const size = ["--num-ranks", "8", "--num-micro-batches", "16,32"];
  const model = ["--parameter-bytes", "10GB", "--activation-bytes", "1GB"];

  it("ranks plans and gives reasons, as JSON and as tables", async () => {
    const limit = ["--memory-limit", "28GB", "--overlap-share", "0.85"];
    const { code, stdout, stderr } = await plan(...size, ...model, ...limit, "--json");
    expect(stderr).toBe("");
    expect(code).toBe(0);
    const { plans, infeasible } = JSON.parse(stdout);
    expect(plans[0]).toMatchObject({
      schedule: "dualpipev",
      pipelineDepth: 8,
      numPipelines: 1,
      numMicroBatches: 32,
      numStages: 16,
      parameterCopies: 1,
      peakBytes: 18.5e9,
    });
    expect(infeasible.map((one: { constraint: string }) => one.constraint)).toEqual([
      "memoryLimitBytes",
      "memoryLimitBytes",
    ]);
    const text = await plan(...size, ...model, ...limit, "--rows", "2");
    expect(text.stdout).toContain("and 8 slower ones");
    expect(text.stdout).toMatch(/^dualpipev +8 +32 /m);
    expect(text.stdout).toMatch(/^dualpipe +8 +16 +rank 0 needs 29000000000 bytes/m);
  });

  it("plans from layers and a batch of tokens", async () => {
    const layers = fileOf("layers.json", [
      { F: 1, B: 2 },
      { F: 1, B: 2 },
      { F: 1, B: 2 },
      { F: 3, B: 6 },
    ]);
    const batch = ["--batch-tokens", "8192", "--micro-batch-tokens", "1024,2048"];
    const args = ["-r", "2", "--layers", layers, ...batch, "--schedules", "1f1b,dualpipe"];
    const { code, stdout } = await plan(...args, "--overhead", "0.5");
    expect(code).toBe(0);
    expect(stdout).toContain("per 1000 tokens");
    expect(stdout).toContain("8 of 1024");
    expect(stdout).toContain("layers of the first: stages begin at 0, 3");
  });

  it("exits 1 if nothing fits, and 2 for what cannot be asked", async () => {
    const nothing = await plan(...size, ...model, "--memory-limit", "1GB");
    expect(nothing.code).toBe(1);
    expect(nothing.stdout).toContain("no plan fits");
    const cases: [string[], string][] = [
      [["-r", "4"], "give either --num-micro-batches"],
      [[...size, "--memory-limit", "8GB"], "--memory-limit is 8000000000; expected no limit where"],
      [
        [...size, "--pipeline-depth", "3"],
        "--pipeline-depth is 3; expected divisors of --num-ranks",
      ],
      [[...size, "--schedules", "gpipe"], "'gpipe' is not a schedule; expected one of 1f1b"],
      [[...size, "--layers", fileOf("l.json", [{ F: 1, B: 2, G: 3 }])], "layer 0 has the field G"],
      [[...size, "--layers", fileOf("m.json", [{ F: 1 }])], "layers[0].B is undefined"],
    ];
    for (const [args, message] of cases) {
      const { code, stderr } = await plan(...args);
      expect(stderr, args.join(" ")).toContain(message);
      expect(code, args.join(" ")).toBe(2);
    }
  });
});
