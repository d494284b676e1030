import { describe, expect, it } from "vitest";
import { runCli } from "./run-cli.ts";

const plan = (...flags: string[]) => runCli(["hfreduce", "plan", ...flags]);

describe("hfreduce plan", () => {
  it("prints ways, limits and chunks", async () => {
    const { code, stdout } = await plan("--gpus", "128", "--bytes", "186MiB");
    expect(code).toBe(0);
    expect(stdout).toContain("allreduce of 186 MiB on 128 GPUs: 16 nodes, 1 zone, gdrcopy, 24");
    expect(stdout).toMatch(/HFReduce, double tree +2 MiB +simulated/);
    expect(stdout).toMatch(/NCCL, ring of all GPUs/);
    expect(stdout).toMatch(/limited by {2}the root port/);
  });

  it("gives the same as JSON", async () => {
    const { stdout } = await plan("--gpus", "16", "--variant", "nvlink", "--json");
    expect(JSON.parse(stdout)).toMatchObject({ gpus: 16, nodes: 2, memoryOperations: 16 });
  });

  it("names the flag that cannot be", async () => {
    const { code, stderr } = await plan("--gpus", "16", "--zones", "3");
    expect(code).not.toBe(0);
    expect(stderr).toContain("--zones is 3; expected a whole number from 1 to 2");
  });
});
