// The contract of every transport, as tests over "how to run N ranks": the same kernels, messages
// and endings, whatever carries the bytes.

import {
  GroupAbortedError,
  RankDeadError,
  RankMismatchError,
  RankTimeoutError,
  type RunOptions,
} from "@open-infra/ranks";
import { testSeed } from "@open-infra/testing";
import { describe, expect, it } from "vitest";
import type { ContractData } from "./ranks/contract-rank.ts";
import type { EndingData } from "./ranks/endings.ts";

/** What is put to the test. */
export interface ContractOptions {
  readonly name: string;
  run(options: RunOptions): Promise<unknown[]>;
  /** Numbers of ranks, with the artificial nodes they are divided into. */
  readonly sizes: readonly { readonly size: number; readonly ranksPerNode?: number }[];
  readonly skip?: boolean;
  /** Also how ranks end badly, in all ways, or only by being gone. @default "all" */
  readonly endings?: "all" | "gone";
}

const rankModule = new URL("./ranks/contract-rank.ts", import.meta.url);
const endingModule = new URL("./ranks/endings.ts", import.meta.url);

/** Makes the suite of one transport. */
export function contractSuite({
  name,
  run,
  sizes,
  skip = false,
  endings = "all",
}: ContractOptions): void {
  describe.skipIf(skip)(`ranks over ${name}`, () => {
    it.each(sizes)("do all that $size ranks have to do", { timeout: 90_000 }, async (shape) => {
      const seed = testSeed() + shape.size;
      const data: ContractData = { seed, rounds: 25 };
      const options = { ...shape, data, module: rankModule, timeoutMs: 40_000, commThreads: 2 };
      const problems = (await run(options)) as string[][];
      expect(problems.flat(), `seed ${testSeed()}`).toEqual([]);
      expect(problems).toHaveLength(shape.size);
    });

    goneRank(run);
    if (endings === "all") otherEndings(run);
  });
}

async function errorOf(run: ContractOptions["run"], data: EndingData, size = 3): Promise<unknown> {
  const options = { size, data, module: endingModule, timeoutMs: 30_000 };
  return run(options).then(
    (results) => new Error(`ended well: ${JSON.stringify(results)}`),
    (error: unknown) => error,
  );
}

function goneRank(run: ContractOptions["run"]): void {
  it("end all when one is gone, naming it", { timeout: 60_000 }, async () => {
    const error = await errorOf(run, { ending: "exits" });
    expect(error).toBeInstanceOf(RankDeadError);
    const { peer, operation, awaited, message, waitedMs } = error as RankDeadError;
    expect({ peer, operation, awaited }, message).toEqual({
      ...{ peer: 1, operation: "dispatch", awaited: "the row that never comes" },
    });
    expect(waitedMs).toBeLessThan(20_000);
    expect(message).toMatch(/rank 1 \(.*process \d+\)/);
  });
}

function otherEndings(run: ContractOptions["run"]): void {
  it("end all when one throws, with its error", { timeout: 60_000 }, async () => {
    const error = (await errorOf(run, { ending: "throws" })) as Error;
    expect(error.name).toBe("RangeError");
    expect(error.message).toBe("rank 1 has had enough");
  });

  it("end all with the error of one whose disposal waits for all", {
    timeout: 60_000,
  }, async () => {
    const timeoutMs = 2000;
    const data: EndingData = { ending: "disposes" };
    const ended = run({ size: 3, data, module: endingModule, timeoutMs });
    await expect(ended).rejects.toMatchObject({
      ...{ name: "RangeError", message: "rank 1 has had enough" },
    });
  });

  // Far sooner than the group's timeout of 30 s: those that wait for it learn that it has closed.
  it("end all with the error of one that disposes its windows on the way out", {
    timeout: 20_000,
  }, async () => {
    const error = (await errorOf(run, { ending: "closes" })) as Error;
    expect(error.name, error.message).toBe("RangeError");
    expect(error.message).toBe("rank 1 has had enough");
  });

  it("end all when one has an error that nobody catches", { timeout: 60_000 }, async () => {
    const error = (await errorOf(run, { ending: "uncaught" })) as Error;
    expect(error.message).toBe("nobody catches this");
  });

  it("refuse a window of another size, naming both", { timeout: 60_000 }, async () => {
    const error = await errorOf(run, { ending: "shape" });
    expect(error).toBeInstanceOf(RankMismatchError);
    expect((error as Error).message).toMatch(/bytes is (64|128) on rank \d.*(64|128) on rank \d/);
  });

  it("refuse a window of another name", { timeout: 60_000 }, async () => {
    const error = await errorOf(run, { ending: "mismatch" });
    expect(error).toBeInstanceOf(RankMismatchError);
    expect((error as Error).message).toMatch(/apples.*pears|pears.*apples/);
  });

  it("end waits for messages when one aborts", { timeout: 60_000 }, async () => {
    const error = await errorOf(run, { ending: "abort" });
    expect(error).toBeInstanceOf(GroupAbortedError);
    expect((error as Error).message).toContain("somebody said so");
  });

  it("say what a late rank is in", { timeout: 60_000 }, async () => {
    const options = { data: { ending: "late" }, module: endingModule, timeoutMs: 700 };
    const [first, second] = await run({ size: 2, ...options }).catch((error) => [error]);
    // Rank 0 has caught its error and returned; rank 1 fails when it looks, or returned in time.
    const told = first instanceof RankTimeoutError ? first : (first as RankTimeoutError);
    expect(told.name, `${told.message} ${second}`).toMatch(/RankTimeoutError|GroupAbortedError/);
    expect(told.message).toContain("a long computation");
    expect(told.message).toContain("the row that never comes");
  });

  it("end a wait for a message whose sender is gone", { timeout: 60_000 }, async () => {
    const error = (await errorOf(run, { ending: "alone" }, 2)) as RankDeadError;
    expect(error).toBeInstanceOf(RankDeadError);
    expect({ peer: error.peer, operation: error.operation }).toEqual({
      peer: 1,
      operation: "recv",
    });
    expect(error.awaited).toBe("a message with tag 5");
  });
}
