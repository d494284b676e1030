// The figures of a placement beside those before, and all layers as a table.

import type { VNode } from "preact";
import {
  formatCount,
  formatMs,
  formatPercent,
  formatQuantity,
  NOT_KNOWN,
} from "../../../ui/format.ts";
import { Figures } from "../../../ui/workbench.tsx";
import type { PlaceResult } from "../compute.ts";
import type { ExpertsSession } from "../session.ts";

const ratio = (value: number): string => value.toFixed(4);

/** A gap is small where it matters: 0 % is only what is 0. */
function gapText(gap: number): string {
  return gap === 0 ? "0 %" : `${Number((gap * 100).toPrecision(2))} %`;
}

export function PlaceFigures({ result }: { readonly result: PlaceResult }): VNode {
  const { before, after, moved, numLayers, shape } = result;
  const slots = numLayers * shape.numReplicas;
  const was = before.report;
  const is = after.report;
  return (
    <Figures
      label="Figures of the placement"
      entries={[
        {
          name: "Max ÷ mean",
          value: ratio(is.meanMaxOverMean),
          beside: `was ${ratio(was.meanMaxOverMean)}`,
          color: "accent",
          title: "Load of the fullest GPU over the mean, in the mean of the layers",
        },
        {
          name: "Worst layer",
          value: ratio(is.worstMaxOverMean),
          beside: `was ${ratio(was.worstMaxOverMean)}`,
        },
        {
          name: "Balancedness",
          value: formatPercent(is.balancedness),
          beside: `was ${formatPercent(was.balancedness)}`,
          title: "Σ mean ÷ Σ max over the layers: the share of time that GPUs do not wait",
        },
        {
          name: "Gap to the bound",
          value: gapText(is.worstGap),
          beside: "at most",
          title: is.nodeLimit
            ? "No placement that keeps groups on one node is better by more than this in any layer"
            : "No placement is better by more than this in any layer",
        },
        {
          name: "Duplicates",
          value: formatCount(is.duplicates),
          color: is.duplicates > 0 ? "alert" : undefined,
        },
        {
          name: "Moved slots",
          value: moved === undefined ? NOT_KNOWN : formatCount(is.movedSlots),
          beside: moved === undefined ? undefined : formatPercent(is.movedShare),
          title: `Of ${formatCount(slots)} slots, those that need a copy from another GPU`,
          color: "second",
        },
        { name: "Computed in", value: formatMs(result.elapsedMs) },
      ]}
    />
  );
}

export function LayerTable({
  result,
  session,
}: {
  readonly result: PlaceResult;
  readonly session: ExpertsSession;
}): VNode {
  const shown = Math.min(session.layer.value, result.numLayers - 1);
  const before = result.before.report.layers;
  return (
    <details class="bench-card">
      <summary>All layers as a table</summary>
      <div class="bench-table-scroll layers-scroll">
        <table class="bench-table">
          <thead>
            <tr>
              <th scope="col">Layer</th>
              <th scope="col">Max ÷ mean before</th>
              <th scope="col">Max ÷ mean after</th>
              <th scope="col">Max load</th>
              <th scope="col">Mean load</th>
              <th scope="col">Lower bound</th>
              <th scope="col">Gap</th>
              <th scope="col">Duplicates</th>
              <th scope="col">Moved</th>
            </tr>
          </thead>
          <tbody>
            {result.after.report.layers.map((layer, index) => (
              <tr key={index} aria-current={index === shown}>
                <th scope="row">
                  <button
                    type="button"
                    onClick={() => {
                      session.layer.value = index;
                    }}
                  >
                    {index}
                  </button>
                </th>
                <td data-number>{ratio(before[index]?.maxOverMean ?? 1)}</td>
                <td data-number>{ratio(layer.maxOverMean)}</td>
                <td data-number>{formatQuantity(layer.maxLoad)}</td>
                <td data-number>{formatQuantity(layer.meanLoad)}</td>
                <td data-number>{formatQuantity(layer.lowerBound)}</td>
                <td data-number>{gapText(layer.gap)}</td>
                <td data-number>{layer.duplicates}</td>
                <td data-number>{result.moved === undefined ? NOT_KNOWN : layer.movedSlots}</td>
              </tr>
            ))}
          </tbody>
        </table>
      </div>
    </details>
  );
}
