// Runs random pipelines in two sessions, with the optimizer and without, against one DuckDB.

import { mkdtempSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { type DuckDBConnection, DuckDBInstance } from "@duckdb/node-api";
import { seededRandom } from "@open-infra/testing";
import { init, type Session } from "../../src/index.ts";
import { difference } from "./check.ts";
import { Generator, type Pipeline } from "./generator.ts";
import { makeSources, type Source } from "./sources.ts";

/** Sessions, files and the reference, for many pipelines. */
export class PipelineRun implements AsyncDisposable {
  readonly #root = mkdtempSync(join(tmpdir(), "smallpond-pipelines-"));
  /** How often each rule of the optimizer changed a plan. */
  readonly applied = new Map<string, number>();
  #sessions: readonly Session[] = [];
  #sources: readonly Source[] = [];
  #reference: DuckDBConnection | undefined;

  async start(): Promise<void> {
    this.#reference = await (await DuckDBInstance.create(":memory:", { threads: "1" })).connect();
    this.#sources = await makeSources(this.#root, this.#reference);
    const options = { dataRoot: this.#root, numExecutors: 1, executorCpus: 2 };
    this.#sessions = [
      await init({ ...options, jobId: "as-written", optimize: false }),
      await init({ ...options, jobId: "optimized" }),
    ];
  }

  /** @throws Error with the seed, the steps and the plan, if a result is not the reference's. */
  async pipeline(seed: number): Promise<string> {
    let text = "";
    for (const session of this.#sessions) {
      const reference = this.#reference as DuckDBConnection;
      const random = seededRandom(seed);
      let pipeline: Pipeline | undefined;
      try {
        const generator = new Generator(random, session, this.#sources, reference);
        pipeline = await generator.pipeline();
        text = pipeline.text;
        const { applied } = await session.optimized(pipeline.frame.node);
        for (const [rule, times] of applied) {
          this.applied.set(rule, (this.applied.get(rule) ?? 0) + times);
        }
        const data = await pipeline.frame.compute();
        const problem = await difference(pipeline, data, reference);
        if (problem !== undefined) throw new Error(problem);
      } catch (cause) {
        const message = cause instanceof Error ? cause.message : String(cause);
        const plan = await pipeline?.frame.explain();
        throw new Error(
          [`seed ${seed}, ${session.jobId}: ${message}`, pipeline?.text, plan].join("\n"),
          { cause },
        );
      }
    }
    return text;
  }

  async [Symbol.asyncDispose](): Promise<void> {
    for (const session of this.#sessions) await session.shutdown();
    rmSync(this.#root, { recursive: true, force: true });
  }
}
