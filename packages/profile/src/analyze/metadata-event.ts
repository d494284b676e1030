// Events of phase M: names and order of processes and threads.

import type { EventTableBuilder } from "./builder.ts";
import type { LaneKey } from "./lane-table.ts";
import { parseLenient } from "./lenient-json.ts";

/** Takes what `name` says of a lane from the JSON text of its args; other names say nothing. */
export function describeLane(
  builder: EventTableBuilder,
  name: string,
  pid: LaneKey,
  tid: LaneKey,
  argsText: string,
): void {
  const args = argsText === "" ? undefined : parseLenient(argsText);
  if (args === null || typeof args !== "object") return;
  const text = (key: string): string => {
    const value = (args as Readonly<Record<string, unknown>>)[key];
    return typeof value === "string" ? value : value == null ? "" : JSON.stringify(value);
  };
  const sortIndex = Number((args as { readonly sort_index?: unknown }).sort_index);
  switch (name) {
    case "process_name":
      builder.describeProcess(pid, { name: text("name") });
      break;
    case "process_labels":
      builder.describeProcess(pid, { labels: text("labels") });
      break;
    case "thread_name":
      builder.describeThread(pid, tid, { name: text("name") });
      break;
    case "process_sort_index":
      if (Number.isFinite(sortIndex)) builder.describeProcess(pid, { sortIndex });
      break;
    case "thread_sort_index":
      if (Number.isFinite(sortIndex)) builder.describeThread(pid, tid, { sortIndex });
      break;
    default:
  }
}
