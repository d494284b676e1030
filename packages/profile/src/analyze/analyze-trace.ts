// All analyses of a trace in one plain object, ready for JSON. Field names are the contract of
// `open-infra trace analyze --json` and are documented in the package's README.

import { type AnnotationAnalysis, annotationBreakdown, attribute } from "./annotations.ts";
import { type Bounds, bounds } from "./bounds.ts";
import type { EventTable } from "./event-table.ts";
import { type IdleBreakdown, type IdleOptions, idleBreakdown } from "./idle.ts";
import { type IssueWaitAnalysis, type IssueWaitOptions, issueWaitPairs } from "./issue-wait.ts";
import { type KernelBreakdown, kernelBreakdown } from "./kernels.ts";
import { type LaunchOptions, type LaunchStats, launchStats } from "./launch-stats.ts";
import { findLaunches } from "./launches.ts";
import { type OverlapAnalysis, overlap } from "./overlap.ts";
import { type PhaseAnalysis, phases } from "./phases.ts";
import { type SmPartition, smPartition } from "./sm-partition.ts";
import { roundUs } from "./statistics.ts";
import {
  type DeviceBreakdown,
  sumBreakdowns,
  type TimeBreakdown,
  temporalBreakdown,
} from "./temporal.ts";
import { selectWork, type WorkOptions } from "./work.ts";

/** How to analyse. */
export interface AnalyzeOptions extends WorkOptions, IdleOptions, LaunchOptions {
  /** Kernel names to list. @default all */
  readonly topK?: number;
  readonly issueWait?: IssueWaitOptions;
}

/** All that the analyser knows of a trace; times in µs, percentages with two decimals. */
export interface TraceAnalysis {
  /** Version of this shape: grows when a field changes its meaning or goes. */
  readonly schema: 1;
  /** `lanes` where nothing ran on a device: the innermost spans of lanes were analysed. */
  readonly source: "device" | "lanes";
  /** Events in the file, of all kinds. */
  readonly tableEvents: number;
  /** Events analysed. */
  readonly events: number;
  /** Absolute time that all other times count from. */
  readonly originUs: number;
  /** What could not be analysed and why, and what to mistrust. */
  readonly warnings: readonly string[];
  /** Summed over devices. */
  readonly summary: TimeBreakdown;
  readonly bounds: Bounds;
  readonly devices: readonly DeviceBreakdown[];
  readonly overlap: OverlapAnalysis;
  readonly kernels: KernelBreakdown;
  readonly idle: readonly IdleBreakdown[];
  readonly annotations: AnnotationAnalysis;
  readonly launches: LaunchStats;
  readonly smPartition: readonly SmPartition[];
  readonly issueWait: IssueWaitAnalysis;
  readonly phases: PhaseAnalysis;
}

/** Analyses a trace, or the part of it that `options.selection` names. */
export function analyzeTrace(table: EventTable, options: AnalyzeOptions = {}): TraceAnalysis {
  const work = selectWork(table, options);
  const launches = findLaunches(work);
  const attribution = attribute(work, launches);
  const devices = temporalBreakdown(work);
  const summary = sumBreakdowns(devices);
  const launched = launchStats(work, launches, options);
  const annotations = annotationBreakdown(work, attribution);
  return {
    schema: 1,
    source: work.source,
    tableEvents: table.length,
    events: work.length,
    originUs: table.originUs,
    warnings: warningsOf(table, work.source, work.length, launched, annotations),
    summary,
    bounds: boundsOfDevices(summary, devices),
    devices,
    overlap: overlap(work),
    kernels: kernelBreakdown(work, options),
    idle: idleBreakdown(work, launches, options),
    annotations,
    launches: launched,
    smPartition: work.source === "device" ? smPartition(work) : [],
    issueWait: issueWaitPairs(work, options.issueWait),
    phases: phases(work, attribution),
  };
}

/** Devices do not share work, so that the bound of all is the sum of their bounds. */
function boundsOfDevices(summary: TimeBreakdown, devices: readonly DeviceBreakdown[]): Bounds {
  const each = devices.map(bounds);
  if (each.length === 1) return each[0]!;
  const sum = (field: "lowerBoundUs" | "fullOverlapSavesUs" | "boundSavesUs"): number =>
    roundUs(each.reduce((total, part) => total + part[field], 0));
  const lowerBoundUs = sum("lowerBoundUs");
  return {
    ...bounds(summary),
    lowerBoundUs,
    fullOverlapSavesUs: sum("fullOverlapSavesUs"),
    boundSavesUs: sum("boundSavesUs"),
    spanOverBound: lowerBoundUs > 0 ? Math.round((summary.spanUs / lowerBoundUs) * 1e4) / 1e4 : 0,
  };
}

function warningsOf(
  table: EventTable,
  source: "device" | "lanes",
  events: number,
  launched: LaunchStats,
  annotations: AnnotationAnalysis,
): string[] {
  const out: string[] = [];
  if (events === 0) out.push("no events to analyse");
  if (source === "lanes" && events > 0) {
    out.push(
      "nothing ran on a device in this trace: the innermost spans of each lane are analysed as " +
        "if a lane were a stream; launches, queue delays and multiprocessors are not known",
    );
  }
  if (source === "device" && launched.matched === 0 && events > 0) {
    out.push("no event has a launch of the host: no annotations, host wait or queue delay");
  } else if (source === "device" && launched.unmatched > 0) {
    out.push(`${launched.unmatched} of ${events} device events have no launch`);
  }
  if (source === "device" && launched.matched > 0 && annotations.annotations.length === 0) {
    out.push("the trace has no user annotations: time is not attributed to any");
  }
  return [...out, ...warningsOfReading(table)];
}

/** What the reader mended or the recorder lost: figures may be too low. */
function warningsOfReading({ notes, metadata }: EventTable): string[] {
  const out: string[] = [];
  const say = (count: number, one: string, many: string): void => {
    if (count > 0) out.push(count === 1 ? `1 ${one}` : `${count} ${many}`);
  };
  if (notes.stopped) out.push(`only the beginning was read: ${notes.stopped.message}`);
  say(
    notes.malformedEvents,
    "event was left out: a field of it cannot be used",
    "events were left out: a field of theirs cannot be used",
  );
  say(
    notes.unclosedBegins,
    "span never ends and was left out",
    "spans never end and were left out",
  );
  say(
    notes.unmatchedEnds,
    "end has no begin and was left out",
    "ends have no begin and were left out",
  );
  say(
    notes.negativeDurations,
    "duration is below 0 and counts as 0",
    "durations are below 0 and count as 0",
  );
  say(
    notes.missingDurations,
    "complete event has no duration and counts as 0",
    "complete events have no duration and count as 0",
  );
  const dropped = Number(metadata.droppedEvents ?? 0);
  say(dropped, "event was dropped by the recorder", "events were dropped by the recorder");
  return out;
}
