// How nodes that only look at files otherwise are planned, mostly without a task: projections,
// unions, fewer dimensions; and sinks, which put files where a user looks.

import type { DataSet } from "../dataset/dataset.ts";
import { type FileView, viewed } from "../dataset/view.ts";
import { PlanError } from "../errors.ts";
import type { InputRef, SinkPlace, TaskOp } from "../task/task.ts";
import {
  type ConsolidateNode,
  coordinates,
  type PlanNode,
  type ProjectionNode,
  partitionAt,
  partitionCount,
  type SinkNode,
  type UnionNode,
} from "./node.ts";
import type { Partitions, Planning } from "./planner.ts";

/** The same references, seen otherwise. */
export function project({ input, view }: ProjectionNode, planning: Planning): Partitions {
  // Partitions that share data go on to share it.
  const known = new Map<DataSet, DataSet>();
  const look = (ref: InputRef): InputRef => {
    if (!("data" in ref)) return { ...ref, views: [...(ref.views ?? []), view] };
    const data = known.get(ref.data) ?? viewed(ref.data, view);
    known.set(ref.data, data);
    return { data };
  };
  return planning.partitions(input).map((refs) => refs.map(look));
}

/** Partition by partition, as files together, or by a query if they are not read alike. */
export function unite(node: UnionNode, planning: Planning): Partitions {
  const { dimensions, inputs } = node;
  const given = inputs.map((input) => planning.partitions(input));
  const alike = new Set(inputs.map(formOf)).size === 1;
  const selects = inputs.map((_, i) => `SELECT * FROM {${i}}`);
  const op: TaskOp = { kind: "sql", queries: [selects.join(" UNION ALL BY NAME ")] };
  return Array.from({ length: partitionCount(dimensions) }, (_, index) => {
    const at = coordinates(dimensions, index);
    const slots = inputs.map(
      (input, i) => given[i]?.[partitionAt(input.dimensions, at)] as readonly InputRef[],
    );
    if (alike) return slots.flat();
    const task = planning.task(node, { op, inputs: slots, index, place: [dimensions, index] });
    return [{ task, output: 0 }];
  });
}

/** What two nodes must have the same for their files to be read as one data set. */
function formOf(node: PlanNode): string {
  switch (node.kind) {
    case "source":
      return formOfData(node.data);
    case "sources": {
      const forms = new Set(node.data.map(formOfData));
      return [...forms].join(" and ");
    }
    case "split":
    case "repeat":
    case "load":
    case "user-partition":
    case "consolidate":
      return formOf(node.input);
    case "projection":
      return `${formOf(node.input)} as ${JSON.stringify(node.view satisfies FileView)}`;
    case "union": {
      const forms = new Set(node.inputs.map(formOf));
      return forms.size === 1 ? ([...forms][0] as string) : "parquet";
    }
    case "sink":
      return formOf(node.input);
    case "script":
      return "files";
    default:
      return "parquet";
  }
}

function formOfData({ parts: _, ...data }: DataSet): string {
  if (data.format !== "parquet") return JSON.stringify(data);
  const { unionByName: __, hivePartitioning, ...rest } = data;
  const form = { ...rest, ...(hivePartitioning && { hivePartitioning }) };
  return Object.keys(form).length === 1 ? "parquet" : JSON.stringify(form);
}

/** Partitions that differ in the lost dimensions only, together. */
export function consolidate(node: ConsolidateNode, planning: Planning): Partitions {
  const { dimensions, input } = node;
  const groups = Array.from({ length: partitionCount(dimensions) }, (): InputRef[] => []);
  for (const [index, refs] of planning.partitions(input).entries()) {
    const at = coordinates(input.dimensions, index);
    groups[partitionAt(dimensions, at)]?.push(...refs);
  }
  return groups;
}

/** Put aside side by side, then shown at once, then tidied up. */
export function publish(node: SinkNode, planning: Planning): Partitions {
  const { sinkStaging } = planning.context;
  if (sinkStaging === undefined) throw new PlanError("files cannot be put anywhere here");
  const { path, sink: kind } = node;
  const place: SinkPlace = { path, staging: sinkStaging(path), kind };
  // What writes where users look runs once at a time.
  const resources = { speculate: false, boost: false };
  const staged = planning.partitions(node.input).map((refs, partition): readonly InputRef[] => {
    const op: TaskOp = { kind: "sink-stage", place, partition };
    const key = planning.task(node, { op, inputs: [refs], index: partition, resources });
    return [{ task: key, output: 0 }];
  });
  const outputName = node.options.outputName ?? node.input.options.outputName;
  const show: TaskOp = {
    kind: "sink-publish",
    place,
    ...(outputName !== undefined && { outputName }),
    ...(node.removeEmpty && { removeEmpty: true }),
  };
  const index = staged.length;
  const shown = planning.task(node, { op: show, inputs: staged, index, resources });
  const clean: TaskOp = { kind: "sink-clean", place };
  const inputs = [[{ task: shown, output: 0 }]];
  return [[{ task: planning.task(node, { op: clean, inputs, index, resources }), output: 0 }]];
}
