// The two heat maps, before and after, on one scale, and what the pointed-at cell holds in words.

import type { VNode } from "preact";
import { useMemo } from "preact/hooks";
import { cssOf } from "../../../ui/colors.ts";
import { formatCount } from "../../../ui/format.ts";
import { useCanvas } from "../../../ui/use-canvas.ts";
import type { PlaceResult, Side } from "../compute.ts";
import { baselineNames } from "../inputs.ts";
import type { ExpertsSession } from "../session.ts";
import { cellAt, cellBeside, type HeatCell, heatHeight, heatLayout } from "./heat-layout.ts";
import { paintHeat, ratioOf, readHeatTheme } from "./heat-painter.ts";
import { heatColor, legendRatios, scaleEnd } from "./heat-scale.ts";
import { slotsOfGpu } from "./slots.ts";

const sides = ["before", "after"] as const;
type SideName = (typeof sides)[number];

export interface HeatMapsProps {
  readonly result: PlaceResult;
  readonly session: ExpertsSession;
}

/** What the fullest GPU of a layer has in the mean, on the worse side. */
function usualMost({ before, after }: PlaceResult): number {
  return Math.max(before.report.meanMaxOverMean, after.report.meanMaxOverMean);
}

export function HeatMaps({ result, session }: HeatMapsProps): VNode {
  const end = useMemo(() => scaleEnd(Math.max(1.02, usualMost(result))), [result]);
  return (
    <section class="bench-card heat" aria-label="Heat map">
      <header>
        <h2>Load of each GPU ÷ mean, a row a layer</h2>
        <HeatLegend end={end} />
      </header>
      <div class="heat-maps">
        {sides.map((name) => (
          <HeatMap key={name} name={name} end={end} result={result} session={session} />
        ))}
      </div>
      <Readout result={result} cell={session.cell.value} />
    </section>
  );
}

/** Whether few enough slots move for marks to say something. */
function marksMoves({ after: { report } }: PlaceResult): boolean {
  return report.movedSlots > 0 && report.movedShare < 0.5;
}

function titleOf(name: SideName, { baseline, policy }: PlaceResult): readonly [string, string] {
  return name === "before" ? ["Before", baselineNames[baseline]] : ["After", `policy ${policy}`];
}

/** Arrow keys move the cell, Enter shows its layer. */
function moveWith(event: KeyboardEvent, session: ExpertsSession, result: PlaceResult): void {
  if (event.ctrlKey || event.metaKey || event.altKey) return;
  const { numLayers, shape } = result;
  const layer = Math.min(session.layer.peek(), numLayers - 1);
  const cell = session.cell.peek();
  const next = cellBeside(cell, event.key, { numLayers, numGpus: shape.numGpus }, layer);
  if (next !== undefined) session.cell.value = next;
  else if (event.key === "Enter" || event.key === " ") session.layer.value = cell?.layer ?? layer;
  else if (event.key === "Escape") session.cell.value = null;
  else return;
  event.preventDefault();
}

function HeatMap({
  name,
  end,
  result,
  session,
}: HeatMapsProps & { readonly name: SideName; readonly end: number }): VNode {
  const side = result[name];
  const { shape, numLayers } = result;
  const cell = within(session.cell.value, result);
  const layer = Math.min(session.layer.value, numLayers - 1);
  const moved = name === "after" && marksMoves(result) ? result.moved : undefined;
  const canvas = useCanvas(readHeatTheme, (frame, theme) =>
    paintHeat(frame, { side, shape, end, layer, cell, moved }, theme),
  );
  const cellOf = (event: MouseEvent): HeatCell | null => {
    const element = event.currentTarget as HTMLElement;
    const layout = heatLayout(element.clientWidth, 1, shape, numLayers);
    return cellAt(layout, event.offsetX, event.offsetY);
  };
  const [title, what] = titleOf(name, result);
  const { meanMaxOverMean, worstMaxOverMean } = side.report;
  return (
    <figure class="heat-map">
      <figcaption>
        <strong>{title}</strong> <span>{what}</span>
        {moved !== undefined && <span>; dots: a slot has moved here</span>}
      </figcaption>
      <div
        class="heat-canvas"
        role="application"
        // biome-ignore lint/a11y/noNoninteractiveTabindex: an application takes keys
        tabIndex={0}
        aria-label={`${title}: loads by layer and GPU. Arrow keys move, Enter shows the layer.`}
        onKeyDown={(event) => moveWith(event, session, result)}
      >
        <canvas
          ref={canvas}
          height={heatHeight(numLayers)}
          style={{ height: `${heatHeight(numLayers)}px` }}
          role="img"
          aria-label={
            `${numLayers} layers by ${shape.numGpus} GPUs; the fullest GPU has ` +
            `${meanMaxOverMean.toFixed(3)} times the mean load on average, ` +
            `${worstMaxOverMean.toFixed(3)} in the worst layer`
          }
          onPointerMove={(event) => {
            session.cell.value = cellOf(event);
          }}
          onPointerLeave={() => {
            session.cell.value = null;
          }}
          onClick={(event) => {
            const at = cellOf(event);
            if (at !== null) session.layer.value = at.layer;
          }}
        />
      </div>
    </figure>
  );
}

/** The cell, if the present result has it. */
export function within(cell: HeatCell | null, { shape, numLayers }: PlaceResult): HeatCell | null {
  return cell === null || cell.layer >= numLayers || cell.gpu >= shape.numGpus ? null : cell;
}

function legendText(ratio: number, end: number): string {
  const text = `${Number(ratio.toPrecision(ratio < 1 ? 2 : 3))}×`;
  if (ratio === 1) return "mean";
  if (ratio === end) return `≥ ${text}`;
  return ratio === 1 / end ? `≤ ${text}` : text;
}

function HeatLegend({ end }: { readonly end: number }): VNode {
  const canvas = useCanvas(readHeatTheme, ({ context, width, height }, theme) => {
    for (let x = 0; x < width; x++) {
      context.fillStyle = cssOf(heatColor((2 * x) / (width - 1) - 1, theme));
      context.fillRect(x, 0, 1, height);
    }
  });
  return (
    <div class="heat-legend">
      <canvas ref={canvas} role="img" aria-label="Colours from little load to much" />
      <ol>
        {legendRatios(end).map((ratio) => (
          <li key={ratio}>{legendText(ratio, end)}</li>
        ))}
      </ol>
    </div>
  );
}

function Readout({
  result,
  cell: asked,
}: {
  readonly result: PlaceResult;
  readonly cell: HeatCell | null;
}): VNode {
  const cell = within(asked, result) ?? fullestBefore(result);
  const { layer, gpu } = cell;
  const { shape } = result;
  const node = Math.floor((gpu * shape.numNodes) / shape.numGpus);
  return (
    <div class="heat-readout bench-readout" role="status">
      <p>
        <strong>
          Layer {layer}, GPU {gpu}
        </strong>
        , node {node}
        {within(asked, result) === null && ", the fullest before; point at any other cell"}
      </p>
      <dl>
        {sides.map((name) => (
          <div key={name}>
            <dt>{name}</dt>
            <dd>
              <Load side={result[name]} layer={layer} gpu={gpu} /> {slotTexts(result, name, cell)}
            </dd>
          </div>
        ))}
      </dl>
    </div>
  );
}

/** The cell with the most load ÷ mean before. */
function fullestBefore({ before }: PlaceResult): HeatCell {
  const { layers } = before.report;
  const worst = layers.reduce((a, b) => (b.maxOverMean > a.maxOverMean ? b : a));
  return { layer: layers.indexOf(worst), gpu: worst.gpuLoads.indexOf(worst.maxLoad) };
}

function Load({ side, layer, gpu }: { side: Side; layer: number; gpu: number }): VNode {
  const load = side.report.layers[layer]?.gpuLoads[gpu];
  return (
    <strong>
      {formatCount(load)} = {ratioOf(side, layer, gpu).toFixed(3)} × mean:
    </strong>
  );
}

/** Slots beyond this are only counted. */
const SLOTS_TOLD = 40;

/** The experts of a cell's slots: number, replicas, whether weights must come from elsewhere. */
export function slotTexts(result: PlaceResult, name: SideName, cell: HeatCell): string {
  const slots = slotsOfGpu(result, name, cell.layer, cell.gpu);
  const told = slots.slice(0, SLOTS_TOLD).map(({ expert, replicas, moved }) => {
    const times = replicas > 1 ? ` (1 of ${replicas})` : "";
    return `${expert}${times}${moved ? " moved here" : ""}`;
  });
  const more = slots.length - told.length;
  const words = `expert${slots.length === 1 ? "" : "s"} ${told.join(", ")}`;
  return more > 0 ? `${words} and ${more} more` : words;
}
