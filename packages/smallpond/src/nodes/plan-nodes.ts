// The low-level API: a call a kind of node, under the original's names without their endings. They
// give nodes of the same plan that DataFrames are made of, so that both can be mixed: every input
// may be a node or a DataFrame, `frame.node` is a frame's node, `nodes.frame` makes a frame of a
// node.

import type { Table } from "apache-arrow";
import type { DataSet } from "../dataset/dataset.ts";
import { functionRef } from "../functions/function-ref.ts";
import type {
  ComputeNode,
  ConsolidateNode,
  LimitNode,
  LoadNode,
  NodeOptions,
  PartitionNode,
  PlanNode,
  ProjectionNode,
  RangeNode,
  RepeatNode,
  RootNode,
  ScriptNode,
  SinkNode,
  SourceNode,
  SourcesNode,
  SplitNode,
  SqlNode,
  UnionNode,
  UserPartitionNode,
} from "../plan/node.ts";
import { joinDimensions } from "../plan/node.ts";
import { parseTemplate } from "../plan/template.ts";
import type { DataFrame } from "../session/dataframe.ts";
import type { LooseRow } from "../session/frame-options.ts";
import { hashOf } from "../session/keys.ts";
import { callerOf, defaultDimension, type NodeFactory } from "../session/node-factory.ts";
import type { ComputeCall, SinkKind } from "../task/task.ts";
import {
  type BatchOptions,
  type ComputeFunction,
  type ComputeOptions,
  type CutOptions,
  type DataSetPartitionOptions,
  type EvenOptions,
  type HashOptions,
  type LoadOptions,
  NodeCall,
  type ProjectionOptions,
  type RangeOptions,
  type RangePoint,
  type ScriptFunction,
  type ShuffleOptions,
  type SinkOptions,
  type StreamNodeFunction,
} from "./options.ts";
import { outputsOf, type PartitionOutput } from "./outputs.ts";
import { pointLiterals } from "./points.ts";
import { sinkPath } from "./sink-place.ts";

/** A node, or a DataFrame for its node. */
export type NodeInput = PlanNode | DataFrame;

/** What the calls need of a session. */
export interface NodeHost {
  noteMade(node: PlanNode): void;
  frameOf(node: PlanNode): DataFrame;
  execute(
    node: PlanNode,
    options: { readonly forKeeps?: boolean; readonly signal?: AbortSignal },
  ): Promise<readonly DataSet[]>;
}

type Fields<N extends PlanNode> = Omit<N, "id" | "source" | "options">;

const cutOptions = ["dimension", "nested"];
const largestBatch = 122_880;
const sinkKinds: readonly SinkKind[] = ["link", "copy", "link-or-copy", "manifest"];

/** Makes nodes and runs them; a session's `nodes`. */
export class PlanNodes {
  readonly #host: NodeHost;
  readonly #factory: NodeFactory;

  constructor(host: NodeHost, factory: NodeFactory) {
    this.#host = host;
    this.#factory = factory;
  }

  /** Files (`frame.node` of what a session's `read…` gives is one, too), or nothing. */
  dataSource(data: DataSet = { format: "files", parts: [] }): SourceNode {
    const call = this.#call("dataSource");
    return this.#make<SourceNode>({ kind: "source", dimensions: [], data }, {}, call);
  }

  /** Data sets that are partitions from the start. */
  userPartitionedDataSource(
    data: readonly DataSet[],
    options: Pick<CutOptions, "dimension"> = {},
  ): SourcesNode {
    const call = this.#call("userPartitionedDataSource");
    const name = options.dimension ?? defaultDimension;
    const none: PlanNode = { ...call, kind: "source", id: -1, options: {}, ...nothing };
    const { dimensions } = call.cut(none, data.length, { dimension: name, nested: false }, name);
    return this.#make<SourcesNode>({ kind: "sources", dimensions, data }, {}, call);
  }

  /** Contiguous groups of files, or of rows across files; text is made into Parquet for rows. */
  evenlyDistributedPartition(
    input: NodeInput,
    count: number,
    options: EvenOptions = {},
  ): SplitNode {
    return this.#even(input, count, options, this.#call("evenlyDistributedPartition"));
  }

  #even(given: NodeInput, count: number, options: EvenOptions, call: NodeCall): SplitNode {
    const own = call.options(options, [...cutOptions, "by", "shuffled"]);
    const { by = "files", shuffled = false } = options;
    if (by !== "files" && by !== "rows") throw call.error(`by must be files or rows, not ${by}`);
    const cut = call.cut(nodeOf(given), count, options, defaultDimension);
    const plain = nodeOf(given);
    const input = by === "rows" ? this.#factory.countable(plain, count, call.source) : plain;
    const more = shuffled ? { shuffled: true as const } : {};
    return this.#make<SplitNode>({ kind: "split", input, count, by, ...cut, ...more }, own, call);
  }

  /** Evenly by files or rows, all as one for 1, or as it was partitioned by `column` before. */
  dataSetPartition(
    input: NodeInput,
    count: number,
    options: DataSetPartitionOptions = {},
  ): SplitNode | LoadNode | ConsolidateNode {
    const call = this.#call("dataSetPartition");
    const { column, ...even } = options;
    if (column !== undefined) {
      const { by: _, shuffled: __, ...load } = even;
      return this.#load(input, count, { ...load, column }, call);
    }
    const { dimensions } = nodeOf(input);
    if (count === 1 && dimensions.length > 0 && options.dimension === undefined) {
      return this.#consolidate(input, [], call);
    }
    return this.#even(input, count, even, call);
  }

  /** Rows by the hash of columns, the original's placement exactly; or at random. */
  hashPartition(given: NodeInput, count: number, options: HashOptions): PartitionNode {
    const call = this.#call("hashPartition");
    const own = call.options(options, [...cutOptions, "columns", "random", "keepColumn"]);
    const { columns = [], random = false } = options;
    const list = typeof columns === "string" ? [columns] : columns;
    if (random === list.length > 0) throw call.error("give columns to hash by, or random: true");
    call.count("the number of partitions", count);
    const hash = random ? `floor(random() * ${count})` : `${hashOf(list)} % ${count}`;
    const label = random ? "random()" : `hash(${list.join(", ")})`;
    const cut = { expression: hash, label, together: list, inRange: true as const };
    return this.#rows(
      nodeOf(given),
      count,
      { ...options, usual: defaultDimension },
      cut,
      own,
      call,
    );
  }

  /** Rows by a number they have: 0 to count − 1, or the task fails and names what came. */
  shuffle(given: NodeInput, count: number, options: ShuffleOptions): PartitionNode {
    const call = this.#call("shuffle");
    const own = call.options(options, [...cutOptions, "by", "keepColumn"]);
    const { by } = options;
    if (typeof by !== "string" || by.trim() === "") {
      throw call.error("by must be a column or an expression");
    }
    const usual = /^[A-Za-z_]\w*$/.test(by) ? by : defaultDimension;
    const cut = { expression: by, label: by, together: [] };
    return this.#rows(nodeOf(given), count, { ...options, usual }, cut, own, call);
  }

  #rows(
    input: PlanNode,
    count: number,
    options: CutOptions & { readonly keepColumn?: boolean; readonly usual: string },
    work: Pick<PartitionNode, "expression" | "label" | "together" | "inRange">,
    own: NodeOptions,
    call: NodeCall,
  ): PartitionNode {
    const cut = call.cut(input, count, options, options.usual);
    const column = options.keepColumn === false ? undefined : cut.dimensions.at(-1)?.name;
    const fields = { kind: "partition" as const, input, count, column, ...work, ...cut };
    return this.#make<PartitionNode>(fields, own, call);
  }

  /**
   * Rows by ranges of a key: given split points, which rise and belong to the range above them, or
   * a number of partitions of about equal size, by split points from a sample. NULL comes last.
   */
  rangePartition(
    given: NodeInput,
    partitions: number | readonly RangePoint[],
    options: RangeOptions,
  ): RangeNode {
    const call = this.#call("rangePartition");
    const own = call.options(options, [...cutOptions, "key", "descending", "nullsFirst"]);
    const input = nodeOf(given);
    const { key, descending = false, nullsFirst = false } = options;
    if (typeof key !== "string" || key.trim() === "") {
      throw call.error("key must be a column or an expression");
    }
    const points = typeof partitions === "number" ? undefined : pointLiterals(partitions, call);
    const count = typeof partitions === "number" ? partitions : partitions.length + 1;
    const cut = call.cut(input, count, options, defaultDimension);
    const fields = { kind: "range" as const, input, count, key, descending, ...cut };
    const more = { ...(nullsFirst && { nullsFirst }), ...(points !== undefined && { points }) };
    return this.#make<RangeNode>({ ...fields, ...more }, own, call);
  }

  /** Files that were partitioned before, by metadata, a column of one value a file, or folders. */
  loadPartitionedDataSet(given: NodeInput, count: number, options: LoadOptions): LoadNode {
    return this.#load(given, count, options, this.#call("loadPartitionedDataSet"));
  }

  #load(given: NodeInput, count: number, options: LoadOptions, call: NodeCall): LoadNode {
    const own = call.options(options, [...cutOptions, "column", "hive"]);
    const { column, hive = false } = options;
    if (typeof column !== "string" || column === "") throw call.error("column must be given");
    const input = nodeOf(given);
    const cut = call.cut(input, count, options, column);
    const more = hive ? { hive: true as const } : {};
    return this.#make<LoadNode>({ kind: "load", input, count, column, ...cut, ...more }, own, call);
  }

  /** The same data in each partition of a new dimension. */
  repeatPartition(
    given: NodeInput,
    count: number,
    options: CutOptions & { readonly dimension: string },
  ): RepeatNode {
    const call = this.#call("repeatPartition");
    const own = call.options(options, cutOptions);
    const input = nodeOf(given);
    const cut = call.cut(input, count, options, options.dimension);
    return this.#make<RepeatNode>({ kind: "repeat", input, count, ...cut }, own, call);
  }

  /** A function is given the data (`inputs[0]`) and gives a data set a partition. */
  userDefinedPartition(
    given: NodeInput,
    count: number,
    fn: ScriptFunction,
    options: CutOptions = {},
  ): UserPartitionNode {
    const call = this.#call("userDefinedPartition");
    const own = call.options(options, cutOptions);
    const input = nodeOf(given);
    const cut = call.cut(input, count, options, defaultDimension);
    const fields = { input, count, fn: functionRef(fn, call.source), ...cut };
    return this.#make<UserPartitionNode>({ kind: "user-partition", ...fields }, own, call);
  }

  /**
   * One query or several over each partition of the inputs, `{0}`, `{1}`, …; the last one's rows
   * are the output. `{dimension}` is a partition's place. An input of fewer dimensions is given to
   * all partitions along those that it lacks.
   */
  sql(
    given: NodeInput | readonly NodeInput[],
    query: string | readonly string[],
    options: NodeOptions = {},
  ): SqlNode {
    const call = this.#call("sql");
    const own = call.options(options, ["udfs", "skipEmpty", "batchBytes", "perThreadOutput"]);
    const { inputs, dimensions } = joined(given, call);
    const texts = typeof query === "string" ? [query] : query;
    if (texts.length === 0) throw call.error("there is no query");
    if (own.batchBytes !== undefined && inputs.length === 0) {
      throw call.error("batchBytes needs an input");
    }
    const names = dimensions.map(({ name }) => name);
    const queries = texts.map((text) => parseTemplate(text, names));
    for (const piece of queries.flat()) {
      if (typeof piece !== "object" || !("input" in piece) || piece.input < inputs.length) continue;
      const has = inputs.length === 1 ? "1 input" : `${inputs.length} inputs`;
      throw call.error(`the query names {${piece.input}}, but has ${has}: ${texts.join("; ")}`);
    }
    return this.#make<SqlNode>({ kind: "sql", inputs, dimensions, queries }, own, call);
  }

  /** A function of all rows of each input, once a partition. */
  compute<I = readonly LooseRow[]>(
    given: NodeInput | readonly NodeInput[],
    fn: ComputeFunction<I>,
    options: ComputeOptions = {},
  ): ComputeNode {
    return this.#compute("table", given, fn, options, this.#call("compute"));
  }

  /** A function of a batch of the first input and all rows of the others, as often as it takes. */
  batch<I = readonly LooseRow[]>(
    given: NodeInput | readonly NodeInput[],
    fn: ComputeFunction<I>,
    options: BatchOptions = {},
  ): ComputeNode {
    const usual = { checkpointMs: 180_000, ...options };
    return this.#compute("batch", given, fn, usual, this.#call("batch"));
  }

  /**
   * A function of a stream of batches of each input, once a partition; it gives an iterable. With
   * `checkpointMs` it must have given all that comes of a batch of the first input when it asks for
   * the next one, and need nothing of it any more: a later attempt may begin there.
   */
  stream<I = readonly LooseRow[]>(
    given: NodeInput | readonly NodeInput[],
    fn: StreamNodeFunction<I>,
    options: BatchOptions = {},
  ): ComputeNode {
    return this.#compute("stream", given, fn, options, this.#call("stream"));
  }

  #compute(
    mode: ComputeCall["mode"],
    given: NodeInput | readonly NodeInput[],
    fn: Parameters<typeof functionRef>[0],
    options: BatchOptions,
    call: NodeCall,
  ): ComputeNode {
    const streams = mode === "table" ? [] : ["batchRows", "checkpointMs"];
    const own = call.options(options, ["format", "schema", "skipEmpty", ...streams]);
    const { format = "rows", schema, batchRows = largestBatch, checkpointMs = 0 } = options;
    if (format !== "rows" && format !== "arrow") {
      throw call.error(`format must be rows or arrow, not ${format}`);
    }
    const { inputs, dimensions } = joined(given, call);
    if (inputs.length === 0 && mode === "batch") throw call.error("there is no input");
    const work: ComputeCall = {
      fn: functionRef(fn, call.source),
      mode,
      format,
      batchRows: call.count("batchRows", batchRows),
      ...(schema !== undefined && { schema }),
      ...(call.count("checkpointMs", checkpointMs, 0) > 0 && { checkpointMs }),
    };
    return this.#make<ComputeNode>({ kind: "compute", inputs, dimensions, call: work }, own, call);
  }

  /** A function that reads its inputs' files and writes files into a folder: its output. */
  script(
    given: NodeInput | readonly NodeInput[],
    fn: ScriptFunction,
    options: NodeOptions = {},
  ): ScriptNode {
    const call = this.#call("script");
    const own = call.options(options, ["skipEmpty"]);
    const { inputs, dimensions } = joined(given, call);
    const ref = functionRef(fn, call.source);
    return this.#make<ScriptNode>({ kind: "script", inputs, dimensions, fn: ref }, own, call);
  }

  /** The same files, seen otherwise; costs no task. */
  projection(given: NodeInput, options: ProjectionOptions): ProjectionNode {
    const call = this.#call("projection");
    const own = call.options(options, ["columns", "generated", "unionByName"]);
    const { columns, generated = [], unionByName } = options;
    if (columns?.length === 0) throw call.error("columns must be at least one, or not given");
    for (const name of generated) {
      if (name === "filename" || name === "file_row_number") continue;
      throw call.error(`generated must be filename or file_row_number, not ${name}`);
    }
    const input = nodeOf(given);
    const view = {
      ...(columns !== undefined && { columns }),
      ...(generated.length > 0 && { generated }),
      ...(unionByName !== undefined && { unionByName }),
    };
    const { dimensions } = input;
    return this.#make<ProjectionNode>({ kind: "projection", input, dimensions, view }, own, call);
  }

  /** The first rows over all partitions, as one partition. */
  limit(given: NodeInput, count: number, options: NodeOptions = {}): LimitNode {
    const call = this.#call("limit");
    const own = call.options(options, []);
    call.count("the number of rows", count, 0);
    const input = nodeOf(given);
    return this.#make<LimitNode>({ kind: "limit", input, dimensions: [], count }, own, call);
  }

  /** Inputs of the same dimensions, put together partition by partition. */
  union(given: readonly NodeInput[], options: NodeOptions = {}): UnionNode {
    const call = this.#call("union");
    const own = call.options(options, []);
    const { inputs, dimensions } = joined(given, call);
    if (inputs.length === 0) throw call.error("there is no input");
    for (const input of inputs) {
      if (input.dimensions.length === dimensions.length) continue;
      const shown = (node: PlanNode): string =>
        node.dimensions.map(({ name, count }) => `${name} 0-${count - 1}`).join(" × ") || "none";
      const widest = inputs.find((other) => other.dimensions === dimensions) ?? input;
      const both = `${shown(widest)} and ${shown(input)}`;
      throw call.error(`the inputs must have the same dimensions, not ${both}`);
    }
    return this.#make<UnionNode>({ kind: "union", inputs, dimensions }, own, call);
  }

  /** Partitions that differ in the other dimensions only, put together without moving a row. */
  consolidate(given: NodeInput, dimensions: readonly string[]): ConsolidateNode {
    return this.#consolidate(given, dimensions, this.#call("consolidate"));
  }

  #consolidate(given: NodeInput, names: readonly string[], call: NodeCall): ConsolidateNode {
    const input = nodeOf(given);
    const has = input.dimensions.map(({ name }) => name);
    for (const name of names) {
      if (has.includes(name)) continue;
      throw call.error(`the input has no dimension ${name}, but ${has.join(", ") || "none"}`);
    }
    const dimensions = input.dimensions.filter(({ name }) => names.includes(name));
    return this.#make<ConsolidateNode>({ kind: "consolidate", input, dimensions }, {}, call);
  }

  /** Files put into a folder, all or none, with a list of them, `.MANIFEST.txt`. */
  dataSink(given: NodeInput, path: string, options: SinkOptions = {}): SinkNode {
    const call = this.#call("dataSink");
    const own = call.options(options, ["kind", "removeEmpty"]);
    const { kind = "link-or-copy", removeEmpty = false } = options;
    if (!sinkKinds.includes(kind)) {
      throw call.error(`kind must be ${sinkKinds.join(", ")}, not ${kind}`);
    }
    const place = sinkPath(path, call);
    const input = nodeOf(given);
    const fields = { kind: "sink" as const, input, dimensions: [], path: place, sink: kind };
    const more = removeEmpty ? { removeEmpty: true as const } : {};
    return this.#make<SinkNode>({ ...fields, ...more }, own, call);
  }

  /** Several outputs of one plan, by name. */
  root(outputs: Readonly<Record<string, NodeInput>>): RootNode {
    const call = this.#call("root");
    const names = Object.keys(outputs);
    const inputs = Object.values(outputs).map(nodeOf);
    if (inputs.length === 0) throw call.error("there is no output");
    const inner = inputs.findIndex(({ kind }) => kind === "root");
    if (inner >= 0) throw call.error(`${names[inner]} is a root itself`);
    return this.#make<RootNode>({ kind: "root", inputs, names, dimensions: [] }, {}, call);
  }

  /** A DataFrame of a node. @throws PlanError for a root, which has several outputs */
  frame(node: PlanNode): DataFrame {
    if (node.kind === "root") throw this.#call("frame").error("a root has several outputs");
    return this.#host.frameOf(node);
  }

  /** Runs what a node needs; gives its partitions, of a root those of each output by name. */
  run(
    root: RootNode,
    options?: { readonly signal?: AbortSignal },
  ): Promise<Readonly<Record<string, readonly PartitionOutput[]>>>;
  run(
    node: Exclude<PlanNode, RootNode> | DataFrame,
    options?: { readonly signal?: AbortSignal },
  ): Promise<readonly PartitionOutput[]>;
  async run(
    target: NodeInput,
    options: { readonly signal?: AbortSignal } = {},
  ): Promise<readonly PartitionOutput[] | Readonly<Record<string, readonly PartitionOutput[]>>> {
    const node = nodeOf(target);
    return outputsOf(node, await this.#host.execute(node, options));
  }

  #call(name: string): NodeCall {
    return new NodeCall(name, callerOf());
  }

  #make<N extends PlanNode>(fields: Fields<N>, options: NodeOptions, call: NodeCall): N {
    const { source } = call;
    const node = { ...fields, id: this.#factory.nextId(), options, source } as unknown as N;
    this.#host.noteMade(node);
    return node;
  }
}

const nothing = { dimensions: [], data: { format: "files" as const, parts: [] } };

const nodeOf = (input: NodeInput): PlanNode => ("kind" in input ? input : input.node);

/** Inputs and the dimensions of a node over all of them. */
function joined(
  given: NodeInput | readonly NodeInput[],
  call: NodeCall,
): { readonly inputs: readonly PlanNode[]; readonly dimensions: PlanNode["dimensions"] } {
  const list = Array.isArray(given) ? (given as readonly NodeInput[]) : [given as NodeInput];
  const inputs = list.map(nodeOf);
  return { inputs, dimensions: call.within(() => joinDimensions(inputs)) };
}

/** Rows as Arrow tables, for functions with `format: "arrow"`. */
export type ArrowInput = Table;
