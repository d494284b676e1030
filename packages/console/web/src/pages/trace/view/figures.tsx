// The figures of the whole trace, large: how long, how busy, how much of the communication is
// hidden.

import type { VNode } from "preact";
import { formatCount, formatPercent, NOT_KNOWN } from "../../../ui/format.ts";
import { formatUs, formatWholeUs } from "../../../ui/time-axis.ts";
import type { TracePhase } from "../session.ts";
import type { RangeStats } from "../timeline/range-stats.ts";

export function Figures({
  stats,
  open,
}: {
  readonly stats: RangeStats;
  readonly open: Extract<TracePhase, { kind: "open" }>;
}): VNode {
  const { overlap } = stats;
  const { data } = open.state;
  const communicates = overlap.communicationUs > 0;
  const { deviceSpansUs } = data.work;
  const several = data.overlap.devices > 1;
  return (
    <dl class="trace-figures" aria-label="Figures of the whole trace">
      <Figure name="Trace" value={data.title} text />
      <Figure name="Events" value={formatCount(data.events)} />
      <Figure name="Span" value={formatUs(data.work.endUs - data.work.startUs)} />
      <Figure
        name={several ? `Busy, mean of ${data.overlap.devices}` : "Busy"}
        value={formatPercent(deviceSpansUs > 0 ? overlap.busyUs / deviceSpansUs : null)}
      />
      <Figure
        name="Communication hidden"
        value={communicates ? formatPercent(overlap.hiddenShare) : NOT_KNOWN}
        color={communicates ? "accent" : undefined}
      />
      <Figure
        name={several ? `Exposed, all ${data.overlap.devices}` : "Exposed"}
        value={communicates ? formatWholeUs(overlap.exposedUs) : NOT_KNOWN}
        color={overlap.exposedUs > 0 ? "alert" : undefined}
      />
    </dl>
  );
}

function Figure({
  name,
  value,
  color,
  text = false,
}: {
  readonly name: string;
  readonly value: string;
  readonly color?: string | undefined;
  readonly text?: boolean;
}): VNode {
  return (
    <div data-color={color} data-text={text}>
      <dt>{name}</dt>
      <dd title={text ? value : undefined}>{value}</dd>
    </div>
  );
}
