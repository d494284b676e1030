// DuckDB as an executor uses it: instances with a task's threads and memory, kept for the next task
// that wants the same. A memory limit belongs to an instance, so a task has one to itself.

import { type DuckDBConnection, DuckDBInstance, version } from "@duckdb/node-api";

/** The engine's version, for content keys. */
export function engineVersion(): string {
  return version();
}

interface Idle {
  readonly instance: DuckDBInstance;
  readonly threads: number;
  readonly memoryBytes: number;
}

/** Lends connections. */
export class EnginePool {
  readonly #temporary: string;
  readonly #idle: Idle[] = [];
  readonly #limit = 8;

  /** @param temporary Where queries larger than memory spill. */
  constructor(temporary: string) {
    this.#temporary = temporary;
  }

  /** Runs with a connection of its own limits. */
  async with<T>(
    limits: { readonly threads: number; readonly memoryBytes: number; readonly seed: number },
    body: (connection: DuckDBConnection) => Promise<T>,
  ): Promise<T> {
    const { threads, memoryBytes, seed } = limits;
    const at = this.#idle.findIndex(
      (idle) => idle.threads === threads && idle.memoryBytes === memoryBytes,
    );
    const { instance } =
      at < 0
        ? { instance: await this.#open(threads, memoryBytes) }
        : (this.#idle.splice(at, 1)[0] as Idle);
    const connection = await instance.connect();
    try {
      await connection.run(`SELECT setseed(${((seed % 20_000) - 10_000) / 10_000})`);
      return await body(connection);
    } finally {
      connection.closeSync();
      if (this.#idle.length < this.#limit) this.#idle.push({ instance, threads, memoryBytes });
      else instance.closeSync();
    }
  }

  async #open(threads: number, memoryBytes: number): Promise<DuckDBInstance> {
    return await DuckDBInstance.create(":memory:", {
      threads: String(threads),
      memory_limit: `${Math.floor(memoryBytes / 2 ** 20)}MiB`,
      temp_directory: this.#temporary,
      preserve_insertion_order: "true",
    });
  }

  close(): void {
    for (const { instance } of this.#idle) instance.closeSync();
    this.#idle.length = 0;
  }
}
