// Who a rank is, by the variables of each starter; contradictions name the variable.

import { RankEnvironmentError } from "@open-infra/ranks";
import { describe, expect, it } from "vitest";
import { expandCounts, firstHost, readRankEnvironment } from "../src/environment.ts";

const torchrun = {
  RANK: "5",
  WORLD_SIZE: "8",
  LOCAL_RANK: "1",
  LOCAL_WORLD_SIZE: "4",
  MASTER_ADDR: "10.0.0.1",
  MASTER_PORT: "29501",
};

describe("the environment of a rank", () => {
  it("is torchrun's", () => {
    expect(readRankEnvironment(torchrun)).toMatchObject({
      rank: 5,
      size: 8,
      localRank: 1,
      localSize: 4,
      masterHost: "10.0.0.1",
      masterPort: 29_501,
      source: "torchrun",
      launcherHoldsStore: false,
      secret: "",
    });
  });

  it("keeps off the port on which torchrun's agent holds a store of its own", () => {
    const env = { ...torchrun, TORCHELASTIC_USE_AGENT_STORE: "True" };
    expect(readRankEnvironment(env).masterPort).toBe(29_502);
  });

  it("is mpirun's, on one host without an address", () => {
    const env = {
      OMPI_COMM_WORLD_RANK: "2",
      OMPI_COMM_WORLD_SIZE: "3",
      OMPI_COMM_WORLD_LOCAL_RANK: "2",
      OMPI_COMM_WORLD_LOCAL_SIZE: "3",
      OMPI_MCA_ess_base_jobid: "1234567",
    };
    const read = readRankEnvironment(env);
    expect(read).toMatchObject({ rank: 2, size: 3, masterHost: "127.0.0.1", source: "openmpi" });
    expect(read.masterPort).toBeGreaterThanOrEqual(20_000);
    expect(read.masterPort).toBeLessThan(40_000);
    const other = readRankEnvironment({ ...env, OMPI_MCA_ess_base_jobid: "1234568" });
    expect(other.masterPort).not.toBe(read.masterPort);
    const several = { ...env, OMPI_COMM_WORLD_SIZE: "6" };
    expect(() => readRankEnvironment(several)).toThrow("MASTER_ADDR");
  });

  it("is srun's, with the first host of the list", () => {
    const env = {
      SLURM_PROCID: "6",
      SLURM_NTASKS: "7",
      SLURM_LOCALID: "2",
      SLURM_NODEID: "1",
      SLURM_TASKS_PER_NODE: "4,3",
      SLURM_JOB_NODELIST: "gpu[007-008,012]",
      SLURM_JOB_ID: "99",
    };
    const expected = { rank: 6, size: 7, localRank: 2, localSize: 3, masterHost: "gpu007" };
    expect(readRankEnvironment(env)).toMatchObject({ ...expected, source: "slurm" });
    // A launcher started by srun sets the variables of its own ranks, which are closer.
    expect(readRankEnvironment({ ...env, ...torchrun })).toMatchObject({ rank: 5, size: 8 });
  });

  it.each([
    ["a-1", "a-1"],
    ["a-1,b-2", "a-1"],
    ["node[03-07,12],other", "node03"],
    ["rack1-[9,11]-ib,x", "rack1-9-ib"],
    ["", ""],
  ])("reads %j as starting with %j", (list, first) => {
    expect(firstHost(list)).toBe(first);
  });

  it("expands counts a node", () => {
    expect(expandCounts("4(x2),3")).toEqual([4, 4, 3]);
    expect(expandCounts("16")).toEqual([16]);
  });

  it.each([
    [{}, "RANK"],
    [{ RANK: "0" }, "WORLD_SIZE"],
    [{ ...torchrun, RANK: "8" }, "RANK"],
    [{ ...torchrun, RANK: "-1" }, "RANK"],
    [{ ...torchrun, RANK: "one" }, "RANK"],
    [{ ...torchrun, WORLD_SIZE: "0" }, "WORLD_SIZE"],
    [{ ...torchrun, LOCAL_RANK: "4" }, "LOCAL_RANK"],
    [{ ...torchrun, LOCAL_WORLD_SIZE: "9" }, "LOCAL_WORLD_SIZE"],
    [{ ...torchrun, MASTER_PORT: "70000" }, "MASTER_PORT"],
    [{ ...torchrun, MASTER_ADDR: "" }, "MASTER_ADDR"],
    [{ ...torchrun, OPEN_INFRA_TIMEOUT_MS: "soon" }, "OPEN_INFRA_TIMEOUT_MS"],
  ])("%j is refused naming %s", (env, variable) => {
    let thrown: unknown;
    try {
      readRankEnvironment(env);
    } catch (error) {
      thrown = error;
    }
    expect(thrown).toBeInstanceOf(RankEnvironmentError);
    expect((thrown as RankEnvironmentError).variable).toBe(variable);
    expect((thrown as Error).message).toContain(variable);
  });

  it("knows the transports", () => {
    expect(readRankEnvironment({ ...torchrun, OPEN_INFRA_TRANSPORT: "tcp" }).transport).toBe("tcp");
    expect(() => readRankEnvironment({ ...torchrun, OPEN_INFRA_TRANSPORT: "mpi" })).toThrow("tcp");
  });
});
