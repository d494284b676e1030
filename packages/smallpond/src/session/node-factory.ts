// Makes plan nodes: numbers them, knows their dimensions, remembers which line of the user's script
// asked for them.

import { fileURLToPath } from "node:url";
import type { DataSet } from "../dataset/dataset.ts";
import { PlanError } from "../errors.ts";
import type { FunctionCall } from "../functions/run-function.ts";
import {
  inputsOf,
  joinDimensions,
  type NodeOptions,
  type PlanNode,
  type SourceNode,
  type SqlNode,
} from "../plan/node.ts";
import { parseTemplate, type TemplatePiece } from "../plan/template.ts";

/** The dimension that `repartition` cuts along unless told otherwise. */
export const defaultDimension = "__data_partition__";

/** `file:line` of the first frame outside this package. */
export function callerOf(): string {
  const frames = (new Error().stack ?? "").split("\n").slice(2);
  const own = fileURLToPath(new URL("..", import.meta.url));
  const frame = frames.find((line) => !line.includes(own) && !line.includes("node:internal"));
  return (
    /\(?((?:file:\/\/)?\/[^()]+:\d+):\d+\)?$/.exec(frame ?? "")?.[1]?.replace("file://", "") ?? ""
  );
}

/** A search for files under way. */
interface Reading {
  readonly format: DataSet["format"];
  readonly ready: Promise<void>;
  readonly files: () => number | undefined;
}

/** Numbers nodes of one session. */
export class NodeFactory {
  #next = 0;
  readonly #readings = new WeakMap<PlanNode, Reading>();

  nextId(): number {
    return this.#next++;
  }

  /**
   * A node, or one that has its text as Parquet, whose rows can be counted and skipped.
   *
   * @param count Tasks to make it so, where the number of files is not known yet.
   */
  countable(node: PlanNode, count: number, source: string): PlanNode {
    let origin = node;
    while (origin.kind === "split" || origin.kind === "repeat" || origin.kind === "consolidate") {
      origin = origin.input;
    }
    const form = this.#formOf(origin);
    if (form === undefined || form.format === "parquet" || form.format === "files") return node;
    const files = Math.max(1, form.files ?? count);
    const whole = node.dimensions.length === 0;
    const apart = whole ? this.split(node, "files", files, source) : node;
    return this.sql([apart], parseTemplate("SELECT * FROM {0}"), {}, source);
  }

  #formOf(node: PlanNode): ReturnType<NodeFactory["form"]> | undefined {
    if (node.kind === "source") return this.form(node);
    const data = node.kind === "sources" ? node.data[0] : undefined;
    return data && { format: data.format, files: data.parts.length };
  }

  source(data: DataSet, source: string): SourceNode {
    return { kind: "source", id: this.#next++, dimensions: [], options: {}, source, data };
  }

  /** A source whose files are still looked for; its data is there after {@link found}. */
  reading(format: DataSet["format"], reading: Promise<DataSet>, source: string): SourceNode {
    let found: DataSet | undefined;
    const ready = reading.then((data) => {
      found = data;
    });
    // Who asks for the data is told; nobody may.
    ready.catch(() => {});
    const node: SourceNode = {
      kind: "source",
      id: this.#next++,
      dimensions: [],
      options: {},
      source,
      get data(): DataSet {
        if (found !== undefined) return found;
        throw new PlanError(`${source}: the files are not found yet: await the reader first`);
      },
    };
    this.#readings.set(node, { format, ready, files: () => found?.parts.length });
    return node;
  }

  /** What a source reads, and how many files, if they were found already. */
  form(node: SourceNode): { readonly format: DataSet["format"]; readonly files?: number } {
    const reading = this.#readings.get(node);
    if (reading === undefined) return { format: node.data.format, files: node.data.parts.length };
    const files = reading.files();
    return { format: reading.format, ...(files !== undefined && { files }) };
  }

  /** Until the data of all sources below a node is there. @throws what a reader threw */
  async found(node: PlanNode): Promise<void> {
    const seen = new Set<PlanNode>([node]);
    for (const each of seen) {
      await this.#readings.get(each)?.ready;
      for (const input of inputsOf(each)) seen.add(input);
    }
  }

  sql(
    inputs: readonly PlanNode[],
    query: readonly TemplatePiece[],
    options: NodeOptions = {},
    source: string,
  ): SqlNode {
    const dimensions = joinDimensions(inputs);
    return { kind: "sql", id: this.#next++, dimensions, options, source, inputs, queries: [query] };
  }

  call(input: PlanNode, call: FunctionCall, options: NodeOptions, source: string): PlanNode {
    const { dimensions } = input;
    return { kind: "call", id: this.#next++, dimensions, options, source, input, call };
  }

  limit(input: PlanNode, count: number, source: string): PlanNode {
    return { kind: "limit", id: this.#next++, dimensions: [], options: {}, source, input, count };
  }

  split(input: PlanNode, by: "files" | "rows", count: number, source: string): PlanNode {
    const dimensions = [{ name: defaultDimension, count }];
    return { kind: "split", id: this.#next++, dimensions, options: {}, source, input, by, count };
  }

  range(
    input: PlanNode,
    cut: {
      readonly key: string;
      readonly descending: boolean;
      readonly nullsFirst?: boolean;
      readonly count: number;
    },
    source: string,
  ): PlanNode {
    const dimensions = [{ name: defaultDimension, count: cut.count }];
    return { kind: "range", id: this.#next++, dimensions, options: {}, source, input, ...cut };
  }

  cut(
    input: PlanNode,
    cut: {
      readonly expression: string;
      readonly count: number;
      readonly column: string | undefined;
      readonly label: string;
      readonly together?: readonly string[];
      readonly inRange?: true;
    },
    options: NodeOptions,
    source: string,
  ): PlanNode {
    if (cut.count < 1 || !Number.isInteger(cut.count)) {
      throw new PlanError(`cannot repartition into ${cut.count} partitions`);
    }
    const dimensions = [{ name: cut.column ?? defaultDimension, count: cut.count }];
    const together = cut.together ?? [];
    const id = this.#next++;
    return { kind: "partition", id, dimensions, options, source, input, ...cut, together };
  }
}
