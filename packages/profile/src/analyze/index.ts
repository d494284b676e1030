// The public face of the analyser. It runs anywhere, the browser included.

export type { EventTable, TraceLane } from "./event-table.ts";
