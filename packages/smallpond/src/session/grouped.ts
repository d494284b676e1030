// Rows with equal keys in one partition, and what is made of each group.

import { identifier } from "../dataset/sql-text.ts";
import type { NodeOptions } from "../plan/node.ts";
import type { DataFrame } from "./dataframe.ts";

/** See {@link DataFrame.groupBy}. */
export class GroupedFrame {
  readonly #frame: DataFrame;
  readonly #keys: readonly string[];

  constructor(frame: DataFrame, keys: readonly string[]) {
    this.#frame = frame;
    this.#keys = keys;
  }

  /** One row a group: the keys, and an aggregate under each name: `{ low: "min(price)" }`. */
  agg(aggregates: Readonly<Record<string, string>>, options: NodeOptions = {}): DataFrame {
    const keys = this.#keys.map(identifier).join(", ");
    const list = Object.entries(aggregates).map(([name, sql]) => `${sql} AS ${identifier(name)}`);
    // The query ends in GROUP BY, so it cannot be a mere SELECT list.
    return this.#frame.select(
      `SELECT ${[keys, ...list].join(", ")} FROM {0} GROUP BY ${keys}`,
      options,
    );
  }

  /** Rows of each group. */
  count(name = "count"): DataFrame {
    return this.agg({ [name]: "count(*)" });
  }
}
