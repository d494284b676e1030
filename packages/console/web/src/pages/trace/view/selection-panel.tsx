// What is selected, in words: a slice with its args and the slices it is tied to, or a range of
// time with what happened in it.

import type { VNode } from "preact";
import { useEffect, useState } from "preact/hooks";
import { formatCount, formatPercent } from "../../../ui/format.ts";
import { formatExactUs, formatUs, formatWholeUs } from "../../../ui/time-axis.ts";
import type { TracePhase } from "../session.ts";
import { partnersOf } from "../timeline/flows.ts";
import { laneTitle, processTitle } from "../timeline/lanes.ts";
import type { RangeStats } from "../timeline/range-stats.ts";
import { laneOfRow, NONE, rowOfSlot } from "../timeline/rows.ts";
import { slotName, type TraceData } from "../timeline/trace-data.ts";
import type { TraceClient } from "../worker/client.ts";
import { briefName } from "./brief-name.ts";
import type { TimelineController } from "./controller.ts";
import type { TimelineState } from "./state.ts";

export interface SelectionPanelProps {
  readonly open: Extract<TracePhase, { kind: "open" }>;
  readonly controller: { readonly current: TimelineController | null };
  /** Of the selected range; null without one. */
  readonly stats: RangeStats | null;
}

/** Partners listed of one direction; the rest is counted. */
const PARTNERS_SHOWN = 6;

export function SelectionPanel({ open, controller, stats }: SelectionPanelProps): VNode {
  const { state, client } = open;
  const slot = state.selected.value;
  return (
    <section class="panel selection-panel" aria-label="Selection" aria-live="polite">
      <h2>{stats !== null ? "Selected range" : slot !== NONE ? "Selected slice" : "Selection"}</h2>
      {stats !== null ? (
        <RangeFacts stats={stats} />
      ) : slot !== NONE ? (
        <SliceFacts data={state.data} slot={slot} client={client} controller={controller} />
      ) : (
        <p class="hint">
          Click a slice, or drag with <kbd>Shift</kbd> to select a range of time.
        </p>
      )}
      <Marks state={state} controller={controller} />
    </section>
  );
}

type Fact = readonly [name: string, value: string];

function Facts({ facts }: { readonly facts: readonly Fact[] }): VNode {
  return (
    <dl class="facts">
      {facts.map(([name, value]) => (
        <div key={name}>
          <dt>{name}</dt>
          <dd>{value}</dd>
        </div>
      ))}
    </dl>
  );
}

function RangeFacts({ stats }: { readonly stats: RangeStats }): VNode {
  const { range, overlap, count, totalUs } = stats;
  const share = (us: number): string => formatPercent(overlap.spanUs > 0 ? us / overlap.spanUs : 0);
  const facts: Fact[] = [
    ["From", formatExactUs(range.startUs)],
    ["Duration", formatExactUs(range.endUs - range.startUs)],
    ["Kernels", `${formatCount(count)}, ${formatUs(totalUs)} in all`],
    ["Busy", `${formatWholeUs(overlap.busyUs)} · ${share(overlap.busyUs)}`],
    ["Computation", `${formatWholeUs(overlap.computationUs)} · ${share(overlap.computationUs)}`],
  ];
  if (overlap.communicationUs > 0) {
    facts.push(
      [
        "Communication",
        `${formatWholeUs(overlap.communicationUs)} · ${share(overlap.communicationUs)}`,
      ],
      ["Hidden", `${formatWholeUs(overlap.overlapUs)} · ${formatPercent(overlap.hiddenShare)}`],
      ["Exposed", formatWholeUs(overlap.exposedUs)],
    );
  }
  return <Facts facts={facts} />;
}

interface SliceFactsProps {
  readonly data: TraceData;
  readonly slot: number;
  readonly client: TraceClient;
  readonly controller: SelectionPanelProps["controller"];
}

function SliceFacts({ data, slot, client, controller }: SliceFactsProps): VNode {
  const { rows, lanes, strings, category } = data;
  const event = rows.event[slot] as number;
  const startUs = rows.start[slot] as number;
  const lane = lanes[laneOfRow(rows, rowOfSlot(rows, slot))];
  const facts: Fact[] = [
    ["Start", formatExactUs(startUs)],
    ["Duration", formatExactUs((rows.end[slot] as number) - startUs)],
  ];
  if (lane) facts.push(["Lane", `${processTitle(lane)} · ${laneTitle(lane)}`]);
  const kind = strings[category[event] as number] ?? "";
  if (kind !== "") facts.push(["Category", kind]);
  const className = classOf(data, event);
  if (className !== undefined) facts.push(["Class", className]);
  const { into, outOf } = partnersOf(data.links, slot);
  const name = slotName(data, slot);
  const brief = briefName(name);
  if (brief !== name) facts.push(["Whole name", name]);
  return (
    <>
      <p class="slice-name">{brief}</p>
      <Facts facts={facts} />
      <Partners title="From" slots={outOf} from={slot} data={data} controller={controller} />
      <Partners title="To" slots={into} from={slot} data={data} controller={controller} />
      <Args event={event} client={client} />
    </>
  );
}

function classOf({ workEvents, workClass, classes }: TraceData, event: number): string | undefined {
  const index = workEvents.indexOf(event);
  const found = index < 0 ? undefined : classes[workClass[index] as number];
  if (found === undefined) return undefined;
  return `${found.name}${found.variant === "" ? "" : `, ${found.variant}`} · ${found.group}`;
}

interface PartnersProps {
  readonly title: string;
  readonly slots: readonly number[];
  readonly from: number;
  readonly data: TraceData;
  readonly controller: SelectionPanelProps["controller"];
}

/** Slices at the other end of an arrow; a click goes there. */
function Partners({ title, slots, from, data, controller }: PartnersProps): VNode | null {
  if (slots.length === 0) return null;
  const { start } = data.rows;
  return (
    <div class="partners">
      <h3>{title}</h3>
      <ul>
        {slots.slice(0, PARTNERS_SHOWN).map((slot) => (
          <li key={slot}>
            <button type="button" onClick={() => controller.current?.select(slot)}>
              {briefName(slotName(data, slot))}
            </button>
            <span class="unit">
              {formatUs(Math.abs((start[slot] as number) - (start[from] as number)))}
              {(start[slot] as number) < (start[from] as number) ? " before" : " after"}
            </span>
          </li>
        ))}
      </ul>
      {slots.length > PARTNERS_SHOWN && (
        <p class="unit">and {formatCount(slots.length - PARTNERS_SHOWN)} more</p>
      )}
    </div>
  );
}

function Args({
  event,
  client,
}: {
  readonly event: number;
  readonly client: TraceClient;
}): VNode | null {
  const [args, setArgs] = useState<readonly Fact[]>([]);
  useEffect(() => {
    let wanted = true;
    setArgs([]);
    void client.args(event).then((text) => wanted && setArgs(argsOf(text)));
    return () => {
      wanted = false;
    };
  }, [event, client]);
  return args.length === 0 ? null : (
    <div class="slice-args">
      <h3>Args</h3>
      <Facts facts={args} />
    </div>
  );
}

function argsOf(text: string | undefined): Fact[] {
  if (text === undefined) return [];
  let parsed: unknown;
  try {
    parsed = JSON.parse(text);
  } catch {
    // NaN and the like, which profilers write and JSON does not have.
    return [["args", text]];
  }
  if (typeof parsed !== "object" || parsed === null) return [["args", text]];
  return Object.entries(parsed).map(([name, value]) => [
    name,
    typeof value === "string" ? value : JSON.stringify(value),
  ]);
}

function Marks({
  state,
  controller,
}: {
  readonly state: TimelineState;
  readonly controller: SelectionPanelProps["controller"];
}): VNode | null {
  const marks = [...state.marks.value].sort((a, b) => a.startUs - b.startUs);
  if (marks.length === 0) return null;
  return (
    <div class="marks">
      <h3>Marks</h3>
      <ol>
        {marks.map((mark, index) => {
          const before = marks[index - 1];
          return (
            <li key={`${mark.startUs} ${mark.endUs}`}>
              <button type="button" onClick={() => controller.current?.show(mark)}>
                {formatUs(mark.startUs)}
              </button>
              {mark.endUs > mark.startUs && (
                <span class="unit">{formatUs(mark.endUs - mark.startUs)} long</span>
              )}
              {before !== undefined && (
                <span class="unit">{formatUs(mark.startUs - before.startUs)} after the last</span>
              )}
            </li>
          );
        })}
      </ol>
      <button
        type="button"
        class="quiet-button"
        onClick={() => {
          state.marks.value = [];
        }}
      >
        Remove all marks
      </button>
    </div>
  );
}
