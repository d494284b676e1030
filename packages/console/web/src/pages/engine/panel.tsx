// One instrument: title, figures of now (or of the moment under the cursor), chart.

import type { VNode } from "preact";
import { useMemo } from "preact/hooks";
import { type Sample, seriesOf, spanOf } from "../../api/stats-history.ts";
import type { StatsFacts } from "../../api/wire.ts";
import { Chart } from "../../ui/chart.tsx";
import type { PanelSpec } from "./panels.ts";

export interface PanelProps {
  readonly panel: PanelSpec;
  readonly samples: readonly Sample[];
  /** The sample whose figures are shown. */
  readonly shown: Sample | undefined;
  readonly stats: StatsFacts | undefined;
  readonly onHover: (index: number | null) => void;
}

export function Panel({ panel, samples, shown, stats, onHover }: PanelProps): VNode {
  const data = useMemo(() => {
    const names = panel.series.map((series) => series.name);
    return seriesOf(samples, names, samples.at(-1)?.time ?? 0);
  }, [panel, samples]);
  return (
    <section class="panel" aria-label={panel.title} data-columns={panel.columns}>
      <div class="panel-head">
        <h2>{panel.title}</h2>
        {panel.series.map((series, index) => (
          <p key={series.name} class="figure" data-color={series.color}>
            <span class="figure-value">{panel.figure(shown?.[series.name] ?? null)}</span>
            {index === 0 && stats !== undefined && panel.outOf !== undefined && (
              <span class="figure-total">{panel.outOf(stats)}</span>
            )}
            <span class="unit">{series.unit}</span>
          </p>
        ))}
      </div>
      <Chart
        data={data}
        series={panel.series}
        spanSeconds={spanOf(samples)}
        description={`${panel.title}, last five minutes`}
        format={panel.tick}
        group="engine"
        whole={panel.whole ?? false}
        onHover={onHover}
        {...(panel.max !== undefined && stats !== undefined && { max: panel.max(stats) })}
        {...(panel.maxAtLeast !== undefined && { maxAtLeast: panel.maxAtLeast })}
      />
    </section>
  );
}
