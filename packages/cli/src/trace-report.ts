// An analysis as text for one screen: the answer first, then what it is made of.

import type { TraceAnalysis } from "@open-infra/profile/analyze";
import { counted, ellipsis, formatTable, formatNumber as n } from "./table.ts";

const NAME_WIDTH = 58;

function pct(value: number): string {
  return `${value.toFixed(1)} %`;
}

/** µs as ms where that reads better. */
function time(us: number): string {
  return us >= 10_000 ? `${n(us / 1000)} ms` : `${n(us)} µs`;
}

function share(part: number, whole: number): string {
  return whole > 0 ? pct((100 * part) / whole) : "";
}

/** What the devices of an analysis are. */
function deviceWord({ source, devices }: TraceAnalysis): string {
  if (source === "device") return "device";
  return devices.every(({ device }) => /^rank /.test(String(device))) ? "rank" : "process";
}

/** The answer in a sentence or two. */
export function headline(analysis: TraceAnalysis): string {
  const { summary, bounds, issueWait, devices } = analysis;
  const { spanUs, busyPercent, communicationUs, overlapPercent, exposedCommunicationUs } = summary;
  if (spanUs === 0) return "Nothing to analyse.";
  const several = ` on ${counted(devices.length, deviceWord(analysis))} together`;
  const from = devices.length > 1 ? several : "";
  const parts = [`${time(spanUs)} from first to last${from}, ${pct(busyPercent)} busy.`];
  if (communicationUs === 0) {
    parts.push("No communication.");
  } else if (issueWait.pairs.length > 0) {
    parts.push(
      `Communication is issued and awaited on one stream: ${pct(issueWait.hiddenPercent)} of ` +
        `${time(issueWait.flightUs)} in flight is hidden, ${n(issueWait.exposedUs)} µs exposed.`,
    );
  } else {
    parts.push(
      `${pct(overlapPercent)} of ${time(communicationUs)} communication is hidden, ` +
        `${n(exposedCommunicationUs)} µs exposed.`,
      `Full overlap would save ${n(bounds.fullOverlapSavesUs)} µs ` +
        `(${share(bounds.fullOverlapSavesUs, spanUs)}).`,
    );
  }
  return parts.join(" ");
}

function timeSection({ summary, bounds }: TraceAnalysis): readonly string[] {
  const { spanUs } = summary;
  const row = (name: string, us: number, of = spanUs): string[] => [name, n(us), share(us, of)];
  const rows = [
    row("span", spanUs),
    row("busy", summary.busyUs),
    row("idle", summary.idleUs),
    row("compute", summary.computeUs),
    row("communication", summary.communicationUs),
    row("  hidden behind compute", summary.overlapUs),
    row("  exposed", summary.exposedCommunicationUs),
    row("memory", summary.memoryUs),
    ...(summary.otherUs > 0 ? [row("other", summary.otherUs)] : []),
    row(`lower bound (${bounds.boundBy})`, bounds.lowerBoundUs),
  ];
  return formatTable(["time", ">µs", ">of span"], rows);
}

/** Beyond this, only the busiest streams are listed. */
const STREAMS_LISTED = 16;

type Stream = TraceAnalysis["devices"][number]["streams"][number];

function streamLabel({ device, stream, name }: Stream, several: boolean): string {
  // A rank has the name of its only lane.
  if (device === name) return name;
  const number = several ? `${device} ${stream}` : String(stream);
  // Kineto calls stream 7 "stream 7".
  const says = name.replace(/^stream /, "").trim();
  return says === "" || says === String(stream) ? number : `${number} ${ellipsis(says, 24)}`;
}

function streamSection({ devices, idle, source }: TraceAnalysis): readonly string[] {
  const all = devices.flatMap(({ streams }) => streams);
  const busiest = new Set(all.toSorted((a, b) => b.busyUs - a.busyUs).slice(0, STREAMS_LISTED));
  const idleOf = new Map(idle.map((row) => [`${row.device}/${row.stream}`, row]));
  const rows = all
    .filter((stream) => busiest.has(stream))
    .map((stream) => {
      const row = idleOf.get(`${stream.device}/${stream.stream}`);
      return [
        streamLabel(stream, devices.length > 1),
        n(stream.events),
        n(stream.busyUs),
        n(stream.communicationUs),
        n(row?.hostWaitUs ?? 0),
        n(row?.kernelWaitUs ?? 0),
        n(row?.otherUs ?? 0),
      ];
    });
  const first = source === "device" ? "stream" : "lane";
  const headers = [first, ">events", ">busy µs", ">comm. µs", ">idle: host", ">kernel", ">other"];
  const left = all.length - rows.length;
  return [...formatTable(headers, rows), ...(left > 0 ? [`… and ${n(left)} less busy`] : [])];
}

/** Classes below this share are only counted. */
const SHARE_LISTED = 0.1;

function classSection({ kernels, overlap }: TraceAnalysis): readonly string[] {
  const hidden = new Map(overlap.classes.map((each) => [each.class, each.overlapPercent]));
  const listed = kernels.classes.filter(({ sharePercent }) => sharePercent >= SHARE_LISTED);
  const rows = listed.map((each) => {
    const behindCompute = each.group === "communication" ? hidden.get(each.class) : undefined;
    return [
      each.class,
      each.family,
      n(each.count),
      n(each.sumUs),
      pct(each.sharePercent),
      behindCompute === undefined ? "" : pct(behindCompute),
      n(each.exposedUs),
    ];
  });
  const left = kernels.classes.length - listed.length;
  const more = left > 0 ? [`… and ${left} below ${SHARE_LISTED} %`] : [];
  const headers = ["class", "family", ">count", ">µs", ">share", ">hidden", ">exposed µs"];
  return [...formatTable(headers, rows), ...more];
}

function kernelSection({ kernels }: TraceAnalysis): readonly string[] {
  const rows = kernels.kernels.map((each) => [
    ellipsis(each.variant ? `${each.shortName} (${each.variant})` : each.shortName, NAME_WIDTH),
    n(each.count),
    n(each.sumUs),
    n(each.meanUs),
    n(each.maxUs),
    pct(each.sharePercent),
  ]);
  const left = kernels.kernelNames - kernels.kernels.length;
  const more = left > 0 && rows.length > 0 ? [`… and ${n(left)} more (--top)`] : [];
  if (rows.length === 0) return [];
  return [...formatTable(["kernel", ">count", ">µs", ">mean", ">max", ">share"], rows), ...more];
}

/** Beyond this, annotations with the most time are listed. */
const ANNOTATIONS_LISTED = 16;

function annotationSection({ annotations }: TraceAnalysis): readonly string[] {
  const used = annotations.annotations.filter(({ events }) => events > 0);
  if (used.length === 0) return [];
  const most = used.toSorted((a, b) => b.gpuUs - a.gpuUs).slice(0, ANNOTATIONS_LISTED);
  const shown = used.filter((each) => most.includes(each));
  const rows = shown.map((each) => [
    ellipsis(each.name, 32),
    n(each.count),
    n(each.gpuUs),
    pct(each.sharePercent),
    n(each.exposedCommunicationUs),
    each.streams
      .slice(0, 4)
      .map(({ stream, sumUs }) => `${stream}: ${n(sumUs)}`)
      .join(", "),
  ]);
  const { unattributedEvents, unattributedUs } = annotations;
  const rest: string[] = [];
  if (used.length > shown.length) rest.push(`… and ${n(used.length - shown.length)} more (--json)`);
  if (unattributedEvents > 0) {
    rest.push(`in none: ${n(unattributedUs)} µs of ${n(unattributedEvents)} events`);
  }
  const headers = ["annotation", ">opened", ">µs", ">share", ">exposed µs", "by stream, µs"];
  return [...formatTable(headers, rows), ...rest];
}

function noteLines(analysis: TraceAnalysis): readonly string[] {
  const { launches, smPartition, issueWait, phases, warnings } = analysis;
  const lines: string[] = [];
  if (launches.matched > 0) {
    const { minUs, medianUs, maxUs } = launches.queueDelay;
    lines.push(
      `launch to start: min ${n(minUs)}, median ${n(medianUs)}, max ${n(maxUs)} µs; ` +
        `${n(launches.shorterThanLaunch)} of ${n(launches.matched)} shorter than their launch`,
    );
  }
  for (const part of smPartition) {
    if (part.confidence === "none") continue;
    const of = part.numSms > 0 ? ` of ${part.numSms}` : "";
    lines.push(
      `multiprocessors${of}: ${part.communicationSms} communicate, ${part.computeSms} compute ` +
        `(confidence ${part.confidence})`,
    );
  }
  if (issueWait.pairs.length > 0) {
    lines.push(
      `issue and wait: ${issueWait.pairs.length} pairs, ${n(issueWait.hiddenUs)} of ` +
        `${n(issueWait.flightUs)} µs in flight hidden`,
    );
  }
  if (phases.kind !== "none") {
    const spans = phases.phases.slice(0, 8).map(({ spanUs }) => n(spanUs));
    const more = phases.phases.length > 8 ? ", …" : "";
    const what = phases.kind === "steps" ? "steps" : `cycles of ${phases.cycle.length} annotations`;
    lines.push(`${phases.phases.length} ${what}: ${spans.join(", ")}${more} µs`);
  }
  return [...lines, ...warnings.map((warning) => `note: ${warning}`)];
}

/** All sections, an empty line between. */
export function analysisReport(file: string, analysis: TraceAnalysis): readonly string[] {
  const { events, tableEvents, devices } = analysis;
  const streams = devices.reduce((sum, device) => sum + device.streams.length, 0);
  const lane = analysis.source === "device" ? "stream" : "lane";
  const head = [
    headline(analysis),
    `${file}: ${n(events)} of ${counted(tableEvents, "event")} on ` +
      `${counted(devices.length, deviceWord(analysis))}, ${counted(streams, lane)}`,
  ];
  const sections =
    events === 0
      ? [noteLines(analysis)]
      : [
          timeSection(analysis),
          streamSection(analysis),
          classSection(analysis),
          kernelSection(analysis),
          annotationSection(analysis),
          noteLines(analysis),
        ];
  return [head, ...sections].filter((lines) => lines.length > 0).flatMap((lines) => [...lines, ""]);
}
