// The worker of the trace page: reads, arranges, hands over, and afterwards answers what an event's
// args were. A module of this origin, so that the content policy needs no exception.

import { type EventTable, readTrace, TraceError } from "@open-infra/profile/analyze";
import { buffersOf, buildTraceData } from "./build-data.ts";
import { exampleTrace } from "./example.ts";
import type { FromWorker, ToWorker, TraceSpec } from "./messages.ts";
import { openSource } from "./source.ts";

/** What this file uses of a worker's global scope, whose types exclude those of a page. */
interface WorkerScope {
  onmessage: ((message: MessageEvent<ToWorker>) => void) | null;
  postMessage(message: FromWorker, transfer?: Transferable[]): void;
}

const scope = globalThis as unknown as WorkerScope;
let argsText: EventTable["argsText"] = () => undefined;

scope.onmessage = ({ data: message }) => {
  if (message.kind === "args") {
    const { event } = message;
    scope.postMessage({ kind: "args", event, text: argsText(event) });
    return;
  }
  open(message.source, message.tolerant).catch((error: unknown) => {
    const mendable = error instanceof TraceError && error.eventsRead > 0 && !message.tolerant;
    scope.postMessage({ kind: "failed", message: describe(error), mendable });
  });
};

async function open(source: TraceSpec, tolerant: boolean): Promise<void> {
  const { title, content, file } = await contentOf(source);
  const table = await readTrace(content, { keepArgs: true, tolerant });
  if (table.length === 0) throw new Error(`${title} is a trace without events`);
  const data = buildTraceData(table, title);
  argsText = (event) => table.argsText(event);
  scope.postMessage({ kind: "loaded", data, ...(file && { file }) }, [...buffersOf(data)]);
}

interface Content {
  readonly title: string;
  readonly content: string | AsyncIterable<Uint8Array>;
  readonly file?: Blob;
}

async function contentOf(source: TraceSpec): Promise<Content> {
  if (source.kind === "example") {
    const content = exampleTrace();
    const file = new Blob([content], { type: "application/json" });
    return { title: "dualpipe-example.json", content, file };
  }
  const { title, chunks } = await openSource(source, (state) => {
    scope.postMessage({ kind: "progress", ...state });
  });
  return { title, content: chunks };
}

function describe(error: unknown): string {
  return error instanceof Error ? error.message : String(error);
}
