// `open-infra dualpipe schedule` as a user runs it. The schedules themselves are tested in their
// package; here it is flags, what is printed where, and exit statuses.

import { mkdtempSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { builtInNames } from "@open-infra/dualpipe";
import { afterAll, beforeAll, describe, expect, it } from "vitest";
import { runCli } from "./run-cli.ts";

const fixture = new URL("../../dualpipe/test/fixtures/dualpipe.json", import.meta.url);

describe("dualpipe schedule", () => {
  let dir: string;
  beforeAll(() => {
    dir = mkdtempSync(join(tmpdir(), "open-infra-dualpipe-"));
  });
  afterAll(() => rmSync(dir, { recursive: true, force: true }));

  const schedule = (...args: string[]) => runCli(["dualpipe", "schedule", ...args]);

  it("prints the published operations and table as JSON", async () => {
    const gold = JSON.parse(readFileSync(fixture, "utf8"));
    const one = gold.cases.find((c: { ranks: number }) => c.ranks === 8);
    const args = ["--schedule", "dualpipe", "--num-ranks", "8", "--num-micro-batches", "16"];
    const { code, stdout, stderr } = await schedule(...args, "--json");
    expect(stderr).toBe("");
    expect(code).toBe(0);
    const document = JSON.parse(stdout);
    expect(document.ops).toEqual(one.ops);
    expect(document.stepCounts).toEqual(one.stepCounts);
    expect(document.validation).toEqual({
      ok: true,
      violations: [],
      omitted: 0,
      readings: ["dataflow", "rendezvous"],
      peakActivations: { untilBackward: one.peakInflight, untilWeight: one.peakInflight },
    });
    expect(document.formula).toMatchObject({ bubble: 6, exact: true, devices: 8 });
  });

  it("prints rows, steps, formula and verdict for people", async () => {
    const { code, stdout } = await schedule("-s", "dualpipev", "-r", "2", "-m", "4");
    expect(code).toBe(0);
    expect(stdout).toBe(`dualpipev: 2 ranks, 4 stages, 4 micro-batches

rank 0  0F0 0F1 0F2 3F0 3I0 3W0 3F1 (0F3;3B1) (3F2;0B0) 3B2 (3F3;0B1) 3B3 0I2 0W2 0I3 0W3
rank 1  1F0 2F0 1F1 2F1 1F2 2B0 (2F2;1B0) (1F3;2B1) (2F3;1B1) 2B2 1B2 2I3 1I3 2W3 1W3

steps   F0  F0 F1  I1 W F1  (F0‖B1) (F1‖B0)  B1 (F1‖B0)  B1 B0  W I0  W
rank 0  2   1      1        1                1           1      1     1
rank 1  0   2      0        2                0           2      0     2

held         5 on every rank at most, until the backward
             5 on every rank at most, until the weights' gradients
bubble       (P − 1)(FB + B − 3W) = 2 (7.7 %) with F 1, B 2, W 1, FB 3
             exact when F = B − W = W and M ≥ 2P: so here
parameters   2 on each of 2 devices (50.0 % of 4 stages)
valid        complete, free of deadlock in dataflow and rendezvous order
`);
  });

  it("shows transfers when asked", async () => {
    const args = ["--schedule", "1f1b", "--num-ranks", "2", "--num-micro-batches", "2"];
    const { stdout } = await schedule(...args, "--communication");
    expect(stdout).toContain("rank 1  1RECV_F0 1F0 1RECV_F1 1B0 1SEND_B0 1F1 1B1 1SEND_B1");
  });

  it("offers every schedule there is", async () => {
    const { stdout } = await schedule("--help");
    expect(stdout).toContain(`[${builtInNames.join("|")}]`);
    const results = await Promise.all(
      builtInNames.map((name) => schedule("-s", name, "-r", "2", "-m", "4", "--json")),
    );
    expect(results.map(({ code }) => code)).toEqual(builtInNames.map(() => 0));
    expect(results.map(({ stdout: out }) => JSON.parse(out).name)).toEqual(builtInNames);
  });

  it.each([
    [["-r", "3", "-m", "8"], /--num-ranks is 3; expected an even number .* with rank 2 − r/],
    [
      ["-r", "4", "-m", "7"],
      /--num-micro-batches is 7; .* at least 2 · --num-ranks = 8, or --allow-partial/,
    ],
    [["-r", "4"], /give --num-ranks N and --num-micro-batches N/],
    [["-s", "zbv", "-r", "4", "-m", "8", "--chunks-per-rank", "3"], /only interleaved-1f1b/],
    [["--file", "missing.json"], /cannot read missing.json: ENOENT/],
    [["--file", "missing.json", "-r", "4"], /--file brings a whole schedule/],
  ])("%j ends with status 2 and says why", async (args, message) => {
    const { code, stdout, stderr } = await schedule(...args);
    expect(stderr).toMatch(message);
    expect(stdout).toBe("");
    expect(code).toBe(2);
  });

  it("takes counts that the schedule does not, with --allow-partial", async () => {
    const { code, stdout } = await schedule("-r", "4", "-m", "5", "--allow-partial");
    expect(code).toBe(0);
    expect(stdout).toContain("dualpipe: 4 ranks, 4 stages in 2 directions, 5 micro-batches");
    expect(stdout).toContain("not here");
  });

  it("checks a schedule of your own: status 1 and the place if it cannot run", async () => {
    const { stdout } = await schedule("-s", "zb1p", "-r", "2", "-m", "3", "--json");
    const file = join(dir, "own.json");
    writeFileSync(file, stdout);
    expect((await schedule("--file", file)).code).toBe(0);
    const document = JSON.parse(stdout);
    [document.ops[1][0], document.ops[1][1]] = [document.ops[1][1], document.ops[1][0]];
    writeFileSync(file, JSON.stringify(document));
    const broken = await schedule("--file", file);
    expect(broken.stdout).toContain("order: rank 1, operation 0, 1I0: its F does not stand");
    expect(broken.code).toBe(1);
    const json = await schedule("--file", file, "--json");
    expect(json.code).toBe(1);
    expect(JSON.parse(json.stdout).validation.ok).toBe(false);
    document.ops[0][0] = ["F", [0, 9], 0];
    writeFileSync(file, JSON.stringify(document));
    const hostile = await schedule("--file", file);
    expect(hostile.stderr).toMatch(/ops\[0\]\[0\]\[1\]\[1\] is 9/);
    expect(hostile.code).toBe(2);
  });

  it("holds ranks to --memory-limit", async () => {
    const args = ["-s", "1f1b", "-r", "3", "-m", "4"];
    expect((await schedule(...args, "--memory-limit", "3")).code).toBe(0);
    const { code, stdout } = await schedule(...args, "--memory-limit", "2");
    expect(stdout).toContain("memory: rank 0: holds 3 micro-batches until their backward at once");
    expect(code).toBe(1);
  });
});
