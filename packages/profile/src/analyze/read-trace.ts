// Reads a trace from bytes or text into an EventTable.

import { EventTableBuilder, type EventTableBuilderOptions, NO_STRING } from "./builder.ts";
import type { EventTable } from "./event-table.ts";

/** Where a trace comes from: bytes in pieces of any size, or text. */
export type TraceSource =
  | string
  | Uint8Array
  | Iterable<Uint8Array>
  | AsyncIterable<Uint8Array>
  | ReadableStream<Uint8Array>;

export interface ReadTraceOptions extends EventTableBuilderOptions {}

/** Reads a whole trace. */
export async function readTrace(
  source: TraceSource,
  options: ReadTraceOptions = {},
): Promise<EventTable> {
  let text = "";
  if (typeof source === "string") text = source;
  else {
    const decoder = new TextDecoder();
    const pieces = source instanceof Uint8Array ? [source] : source;
    for await (const piece of pieces as AsyncIterable<Uint8Array>)
      text += decoder.decode(piece, { stream: true });
  }
  // biome-ignore lint/suspicious/noExplicitAny: replaced soon
  const json = JSON.parse(text) as any;
  const { traceEvents, ...metadata } = Array.isArray(json) ? { traceEvents: json } : json;
  const builder = new EventTableBuilder(options);
  for (const e of traceEvents) {
    if (e.ph === "M") {
      if (e.name === "process_name") builder.describeProcess(e.pid, { name: e.args.name });
      if (e.name === "process_labels") builder.describeProcess(e.pid, { labels: e.args.labels });
      if (e.name === "process_sort_index")
        builder.describeProcess(e.pid, { sortIndex: e.args.sort_index });
      if (e.name === "thread_name") builder.describeThread(e.pid, e.tid, { name: e.args.name });
      if (e.name === "thread_sort_index")
        builder.describeThread(e.pid, e.tid, { sortIndex: e.args.sort_index });
      continue;
    }
    builder.add({
      phase: e.ph,
      pid: e.pid,
      tid: e.tid,
      name: e.name,
      category: e.cat ?? "",
      startUs: e.ts,
      durationUs: e.dur ?? 0,
      ...(e.id === undefined ? {} : { flowId: e.id }),
      correlation: e.args?.correlation ?? -1,
      stream: e.args?.stream ?? -1,
      gridBlocks: e.args?.grid ? e.args.grid[0] * e.args.grid[1] * e.args.grid[2] : 0,
      args: e.args,
    });
  }
  void NO_STRING;
  return builder.finish(metadata);
}
