// What took the time, in the selected range or in the whole trace: by class, by name, by stream.

import { useSignal } from "@preact/signals";
import type { VNode } from "preact";
import { formatCount, formatPercent } from "../../../ui/format.ts";
import { formatUs } from "../../../ui/time-axis.ts";
import { kindOfClass, workKinds } from "../timeline/palette.ts";
import type { RangeStats, WorkSum } from "../timeline/range-stats.ts";
import type { TraceData } from "../timeline/trace-data.ts";
import { briefName } from "./brief-name.ts";
import type { TimelineController } from "./controller.ts";
import type { TimelineState } from "./state.ts";

/** Rows of a table; more are not read by anyone, the search finds the rest. */
const ROWS_SHOWN = 60;

const views = ["Names", "Classes", "Streams"] as const;
type View = (typeof views)[number];

export interface WorkTableProps {
  readonly state: TimelineState;
  readonly stats: RangeStats;
  readonly controller: { readonly current: TimelineController | null };
}

export function WorkTable({ state, stats, controller }: WorkTableProps): VNode {
  const view = useSignal<View>("Names");
  const { data } = state;
  const where = state.range.value === null ? "the whole trace" : "the selected range";
  const what = data.workSource === "device" ? "Kernels" : "Innermost spans";
  return (
    <section class="panel work-panel" aria-label="Where the time goes">
      <div class="work-head">
        <h2>
          {what} of {where}
        </h2>
        <fieldset class="segments" aria-label="Grouped by">
          {views.map((name) => (
            <button
              key={name}
              type="button"
              aria-pressed={view.value === name}
              onClick={() => {
                view.value = name;
              }}
            >
              {name}
            </button>
          ))}
        </fieldset>
      </div>
      <div class="table-scroll">
        {view.value === "Streams" ? (
          <StreamTable stats={stats} devices={data.overlap.devices} />
        ) : (
          <SumTable
            state={state}
            stats={stats}
            sums={view.value === "Names" ? stats.names : stats.classes}
            byName={view.value === "Names"}
            controller={controller}
          />
        )}
      </div>
    </section>
  );
}

interface SumTableProps extends WorkTableProps {
  readonly sums: readonly WorkSum[];
  readonly byName: boolean;
}

function SumTable({ state, stats, sums, byName, controller }: SumTableProps): VNode {
  const { data } = state;
  const most = sums[0]?.totalUs ?? 0;
  return (
    <table class="work-table" data-kind="sums">
      <thead>
        <tr>
          <th scope="col">{byName ? "Name" : "Class"}</th>
          <th scope="col">Count</th>
          <th scope="col">Total</th>
          <th scope="col">Mean</th>
          <th scope="col">Share</th>
        </tr>
      </thead>
      <tbody>
        {sums.slice(0, ROWS_SHOWN).map((sum) => (
          <tr key={sum.id}>
            <th scope="row">
              <span class={`swatch ${tokenOf(data, sum)}`} aria-hidden="true" />
              {byName ? (
                <button
                  type="button"
                  title={data.strings[sum.id]}
                  onClick={() => {
                    state.search(exactly(data.strings[sum.id] ?? ""));
                    controller.current?.goToHit(1);
                  }}
                >
                  {briefName(data.strings[sum.id] ?? "")}
                </button>
              ) : (
                classText(data, sum.id)
              )}
            </th>
            <td>{formatCount(sum.count)}</td>
            <td>{formatUs(sum.totalUs)}</td>
            <td>{formatUs(sum.meanUs)}</td>
            <td>
              <meter min={0} max={Math.max(most, 1e-9)} value={sum.totalUs} aria-hidden="true" />
              {formatPercent(stats.totalUs > 0 ? sum.totalUs / stats.totalUs : 0)}
            </td>
          </tr>
        ))}
        {sums.length > ROWS_SHOWN && (
          <tr>
            <td colSpan={5}>and {formatCount(sums.length - ROWS_SHOWN)} more</td>
          </tr>
        )}
      </tbody>
    </table>
  );
}

function StreamTable({
  stats,
  devices,
}: {
  readonly stats: RangeStats;
  readonly devices: number;
}): VNode {
  const spanUs = stats.overlap.spanUs / Math.max(1, devices);
  return (
    <table class="work-table">
      <thead>
        <tr>
          <th scope="col">Stream</th>
          <th scope="col">Busy</th>
          <th scope="col">Share</th>
        </tr>
      </thead>
      <tbody>
        {stats.streams.slice(0, 4 * ROWS_SHOWN).map(({ title, busyUs }, index) => (
          <tr key={`${index} ${title}`}>
            <th scope="row">{title}</th>
            <td>{formatUs(busyUs)}</td>
            <td>
              <meter min={0} max={Math.max(spanUs, 1e-9)} value={busyUs} aria-hidden="true" />
              {formatPercent(spanUs > 0 ? busyUs / spanUs : 0)}
            </td>
          </tr>
        ))}
      </tbody>
    </table>
  );
}

function tokenOf({ classes }: TraceData, { classId }: WorkSum): string {
  const found = classes[classId];
  return found === undefined || classId === 0
    ? "work-compute"
    : (workKinds[kindOfClass(found)]?.token ?? "work-compute");
}

function classText({ classes }: TraceData, id: number): string {
  const found = classes[id];
  if (found === undefined) return "";
  return found.variant === "" ? found.name : `${found.name} · ${found.variant}`;
}

/** A search that finds this name and no longer one. */
function exactly(name: string): string {
  return `/^${name.replace(/[.*+?^${}()|[\]\\/]/g, "\\$&")}$/`;
}
