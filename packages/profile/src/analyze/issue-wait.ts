// Communication that one stream issues and later waits for, as decoding does it: a low-latency
// dispatch kernel sends and returns, other kernels run while the network works, and a second kernel
// of the same name receives. Overlap of streams reads 0 there; what ran between the two is what was
// hidden. Pairs come from names that say so (send, recv, issue, wait), else from two consecutive
// kernels of one kind.

import { lengthWithin } from "./intervals.ts";
import { percent, roundUs } from "./statistics.ts";
import type { Work } from "./work.ts";

/** One issue and its wait. */
export interface IssueWaitPair {
  readonly device: string | number;
  readonly stream: string | number;
  /** `ep_dispatch`, `ep_combine`, … */
  readonly class: string;
  /** Rows of the table. */
  readonly issueRow: number;
  readonly waitRow: number;
  readonly issueStartUs: number;
  /** Lengths of the two kernels. */
  readonly issueUs: number;
  readonly waitUs: number;
  /** From the end of the issue to the start of the wait. */
  readonly windowUs: number;
  /** Of the window, while the device computed. */
  readonly hiddenUs: number;
  /** From the start of the issue to the end of the wait. */
  readonly flightUs: number;
  /** Class of what computed in the window most. */
  readonly between: string;
}

/** All pairs and their sums. */
export interface IssueWaitAnalysis {
  readonly pairs: readonly IssueWaitPair[];
  /** Kernels of the kinds looked at that found no partner: they send and receive in one. */
  readonly unpaired: number;
  readonly flightUs: number;
  readonly hiddenUs: number;
  /** `flightUs − hiddenUs`: issuing, waiting, and windows in which nothing computed. */
  readonly exposedUs: number;
  readonly hiddenPercent: number;
}

const issueWords = /(?:^|[^a-z])(?:send|isend|issue|post)(?![a-z])/i;
const waitWords = /(?:^|[^a-z])(?:recv|receive|irecv|wait|finish)(?![a-z])/i;

/** How to pair. */
export interface IssueWaitOptions {
  /**
   * `named`: only kernels whose names say send or receive. `consecutive`: of two kernels of one
   * kind with none of another kind between, the first is the issue. `alternate`: every first kernel
   * of a kind is the issue of the next, whatever lies between. `auto`: by name where names say it,
   * else consecutive. @default "auto"
   */
  readonly pairing?: "auto" | "named" | "consecutive" | "alternate";
  /** Classes to look at, `class` or `class/variant`. @default low-latency dispatch and combine */
  readonly classes?: readonly string[];
}

/** Pairs issues with waits on every stream. */
export function issueWaitPairs(work: Work, options: IssueWaitOptions = {}): IssueWaitAnalysis {
  const wanted = new Set(options.classes ?? ["ep_dispatch/low-latency", "ep_combine/low-latency"]);
  const looked = work.classes.map(
    ({ name, variant }) => wanted.has(name) || wanted.has(`${name}/${variant}`),
  );
  let unpaired = 0;
  const found: Found[] = [];
  for (const { first, end } of work.streams) {
    const events = work.streamEvents.subarray(first, end).filter((i) => looked[work.classId[i]!]);
    const before = found.length;
    pairEvents(work, events, options.pairing ?? "auto", found);
    unpaired += events.length - 2 * (found.length - before);
  }
  const pairs = found.map((pair) => describePair(work, pair));
  return { pairs, unpaired, ...sums(pairs) };
}

/** Indices into the work. */
interface Found {
  readonly issue: number;
  readonly wait: number;
}

function describePair(work: Work, { issue, wait }: Found): IssueWaitPair {
  const { device, stream } = work.streams[work.stream[issue]!]!;
  const { startUs, endUs } = work;
  const from = endUs[issue]!;
  const to = Math.max(from, startUs[wait]!);
  return {
    device: work.devices[device]!.pid,
    stream,
    class: work.classes[work.classId[issue]!]!.name,
    issueRow: work.row[issue]!,
    waitRow: work.row[wait]!,
    issueStartUs: roundUs(startUs[issue]!),
    issueUs: roundUs(from - startUs[issue]!),
    waitUs: roundUs(endUs[wait]! - startUs[wait]!),
    windowUs: roundUs(to - from),
    hiddenUs: roundUs(lengthWithin(work.timeOf(device, "computation"), from, to)),
    flightUs: roundUs(endUs[wait]! - startUs[issue]!),
    between: commonestBetween(work, device, from, to),
  };
}

function sums(pairs: readonly IssueWaitPair[]) {
  const flight = pairs.reduce((sum, pair) => sum + pair.flightUs, 0);
  const hidden = pairs.reduce((sum, pair) => sum + pair.hiddenUs, 0);
  return {
    flightUs: roundUs(flight),
    hiddenUs: roundUs(hidden),
    exposedUs: roundUs(flight - hidden),
    hiddenPercent: percent(hidden, flight),
  };
}

/** Appends the pairs of one stream; `events` in order of time. */
function pairEvents(
  work: Work,
  events: Uint32Array,
  pairing: NonNullable<IssueWaitOptions["pairing"]>,
  found: Found[],
): void {
  const name = (i: number): string => work.table.strings[work.table.name[work.row[i]!]!]!;
  const className = (i: number): string => work.classes[work.classId[i]!]!.name;
  const head = (i: number): string => name(i).split("(", 1)[0]!;
  const named =
    pairing === "named" ||
    (pairing === "auto" &&
      events.some((i) => issueWords.test(head(i))) &&
      events.some((i) => waitWords.test(head(i))));
  const open = new Map<string, number[]>();
  let last = -1;
  for (const i of events) {
    const kind = className(i);
    const waiting = open.get(kind) ?? [];
    open.set(kind, waiting);
    if (named) {
      if (issueWords.test(head(i))) waiting.push(i);
      else if (waitWords.test(head(i)) && waiting.length > 0) {
        // Networks deliver in order: the oldest issue is received first.
        found.push({ issue: waiting.shift()!, wait: i });
      }
      continue;
    }
    const consecutive = pairing === "alternate" || last === waiting.at(-1);
    if (waiting.length > 0 && consecutive) found.push({ issue: waiting.pop()!, wait: i });
    else waiting.splice(0, waiting.length, i);
    last = i;
  }
}

function commonestBetween(work: Work, device: number, from: number, to: number): string {
  const { first, end } = work.devices[device]!;
  const sums = new Map<string, number>();
  // Starts are sorted, ends are not; kernels of the window start before it ends.
  let low = first;
  for (let high = end; low < high; ) {
    const middle = (low + high) >> 1;
    if (work.startUs[middle]! < from) low = middle + 1;
    else high = middle;
  }
  for (let i = low; i < end && work.startUs[i]! < to; i++) {
    const { name, group } = work.classes[work.classId[i]!]!;
    if (group !== "computation") continue;
    const part = Math.min(work.endUs[i]!, to) - work.startUs[i]!;
    sums.set(name, (sums.get(name) ?? 0) + part);
  }
  let best = "";
  for (const [name, us] of sums) if (best === "" || us > sums.get(best)!) best = name;
  return best;
}
