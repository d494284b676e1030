// DuckDB as an executor uses it: instances with a task's threads and memory, kept for the next task
// that wants the same. A memory limit belongs to an instance, so a task has one to itself.

import { mkdirSync } from "node:fs";
import { join } from "node:path";
import { type DuckDBConnection, DuckDBInstance, version } from "@duckdb/node-api";
import { noteConnection } from "../task/beside.ts";

/** The engine's version, for content keys. */
export function engineVersion(): string {
  return version();
}

interface Idle {
  readonly instance: DuckDBInstance;
  readonly threads: number;
  readonly memoryBytes: number;
}

/** What one user of an instance may have. */
export interface EngineLimits {
  readonly threads: number;
  readonly memoryBytes: number;
  /** Of `random()`. */
  readonly seed: number;
  /** The instance is closed afterwards, as the body may leave anything in it. */
  readonly once?: boolean;
}

/** Lends connections. */
export class EnginePool {
  readonly #temporary: string;
  readonly #idle: Idle[] = [];
  readonly #limit = 8;
  #opened = 0;

  /** @param temporary Where queries larger than memory spill. */
  constructor(temporary: string) {
    this.#temporary = temporary;
  }

  /** Runs with a connection of its own limits. */
  async with<T>(
    limits: EngineLimits,
    body: (connection: DuckDBConnection) => Promise<T>,
  ): Promise<T> {
    const { threads, memoryBytes, seed, once = false } = limits;
    const { instance, settings } = await this.#take(limits);
    const connection = await instance.connect();
    noteConnection(connection, instance);
    try {
      const seeded = `SELECT setseed(${((seed % 20_000) - 10_000) / 10_000})`;
      await connection.run([...settings, seeded].join("; "));
      return await body(connection);
    } finally {
      connection.closeSync();
      if (once || this.#idle.length >= this.#limit) instance.closeSync();
      else this.#idle.push({ instance, threads, memoryBytes });
    }
  }

  /** An idle instance, best one with these limits, or a new one; and what must be set on it. */
  async #take({
    threads,
    memoryBytes,
  }: EngineLimits): Promise<{ instance: DuckDBInstance; settings: readonly string[] }> {
    const memory = `${Math.floor(memoryBytes / 2 ** 20)}MiB`;
    const same = this.#idle.findIndex(
      (idle) => idle.threads === threads && idle.memoryBytes === memoryBytes,
    );
    const idle = this.#idle.splice(same, 1)[0];
    if (idle === undefined) return { instance: await this.#open(threads, memory), settings: [] };
    // Changing an instance takes 0.5 ms, opening one 8.
    const settings: string[] = [];
    if (idle.threads !== threads) settings.push(`SET threads = ${threads}`);
    if (idle.memoryBytes !== memoryBytes) settings.push(`SET memory_limit = '${memory}'`);
    return { instance: idle.instance, settings };
  }

  async #open(threads: number, memory: string): Promise<DuckDBInstance> {
    mkdirSync(this.#temporary, { recursive: true });
    // Instances give the same names to the files they spill to: in one folder, two of them would
    // write over each other's rows.
    const temporary = join(this.#temporary, `${process.pid}-${this.#opened++}`);
    return await DuckDBInstance.create(":memory:", {
      threads: String(threads),
      memory_limit: memory,
      temp_directory: temporary,
      preserve_insertion_order: "true",
    });
  }

  /** Closes the instances that wait for a task, which keep memory of their last one; how many. */
  trim(): number {
    const closed = this.#idle.splice(0);
    for (const { instance } of closed) instance.closeSync();
    return closed.length;
  }

  close(): void {
    this.trim();
  }
}
