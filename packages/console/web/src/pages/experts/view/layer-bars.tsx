// One layer in full: a bar for each GPU, stacked from its slots, before and after on one scale,
// with the mean and the proven bound as lines.

import type { VNode } from "preact";
import type { SurfaceFrame } from "../../../ui/canvas-surface.ts";
import { cssOf, inkOn, mix, type Rgb } from "../../../ui/colors.ts";
import { formatCount, formatQuantity } from "../../../ui/format.ts";
import { tokenReader } from "../../../ui/tokens.ts";
import { useCanvas } from "../../../ui/use-canvas.ts";
import type { PlaceResult } from "../compute.ts";
import type { ExpertsSession } from "../session.ts";
import { slotTexts, within } from "./heat-map.tsx";
import { slotsOfGpu } from "./slots.ts";

interface BarTheme {
  readonly panel: Rgb;
  /** Experts with one slot, with several, and slots that get new weights. */
  readonly single: Rgb;
  readonly replicated: Rgb;
  readonly moved: Rgb;
  readonly line: string;
  readonly quiet: string;
  readonly mean: string;
  readonly bound: string;
  readonly mono: string;
}

function readBarTheme(element: Element): BarTheme {
  const token = tokenReader(element);
  const panel = token("panel");
  return {
    panel,
    single: mix(token("work-compute"), panel, 0.62),
    replicated: token("work-attention"),
    moved: token("work-dispatch"),
    line: cssOf(token("line")),
    quiet: cssOf(token("ink-3")),
    mean: cssOf(token("ink")),
    bound: cssOf(token("alert")),
    mono: getComputedStyle(element).getPropertyValue("--mono").trim() || "monospace",
  };
}

const LEFT_PX = 44;
const BOTTOM_PX = 16;
const TOP_PX = 8;

interface BarPicture {
  readonly result: PlaceResult;
  readonly name: "before" | "after";
  readonly layer: number;
  readonly gpu: number | null;
  readonly most: number;
}

function paintBars(frame: SurfaceFrame, picture: BarPicture, theme: BarTheme): void {
  const { context, width, height, scale } = frame;
  const { result, name, layer, gpu: pointed, most } = picture;
  const { numGpus } = result.shape;
  context.fillStyle = cssOf(theme.panel);
  context.fillRect(0, 0, width, height);
  const left = LEFT_PX * scale;
  const floor = height - BOTTOM_PX * scale;
  const perUnit = (floor - TOP_PX * scale) / most;
  const column = (width - left) / numGpus;
  const bar = column > 6 * scale ? column - 2 * scale : Math.max(1, column);
  context.font = `${9.5 * scale}px ${theme.mono}`;
  context.textBaseline = "middle";
  for (let gpu = 0; gpu < numGpus; gpu++) {
    const x = left + gpu * column;
    if (gpu === pointed) {
      context.fillStyle = theme.line;
      context.fillRect(x - scale, 0, column, floor);
    }
    let y = floor;
    for (const { expert, replicas, load, moved } of slotsOfGpu(result, name, layer, gpu)) {
      const top = y - load * perUnit;
      const fill = replicas > 1 ? theme.replicated : theme.single;
      context.fillStyle = cssOf(fill);
      const gap = y - top > 3 * scale ? scale : 0;
      context.fillRect(x, top + gap, bar, y - top - gap);
      if (moved) {
        context.fillStyle = cssOf(theme.moved);
        context.fillRect(x, top + gap, Math.max(2 * scale, bar / 6), y - top - gap);
      }
      paintLabel(frame, String(expert), cssOf(inkOn(fill, [10, 18, 17], [244, 249, 247])), {
        x: x + bar / 2,
        y: (top + y) / 2,
        width: bar,
        height: y - top,
      });
      y = top;
    }
  }
  paintAxis(frame, picture, theme, { left, floor, column, perUnit });
}

/** A name in the middle of a box: upright if it fits, else turned, else not at all. */
function paintLabel(
  { context, scale }: SurfaceFrame,
  text: string,
  ink: string,
  box: { readonly x: number; readonly y: number; readonly width: number; readonly height: number },
): void {
  const wide = context.measureText(text).width + 3 * scale;
  const tall = 10 * scale;
  const upright = box.width >= wide && box.height >= tall;
  if (!upright && !(box.width >= tall && box.height >= wide)) return;
  context.save();
  context.translate(box.x, box.y + scale / 2);
  if (!upright) context.rotate(-Math.PI / 2);
  context.fillStyle = ink;
  context.textAlign = "center";
  context.fillText(text, 0, 0);
  context.restore();
}

interface BarAxis {
  readonly left: number;
  readonly floor: number;
  readonly column: number;
  readonly perUnit: number;
}

function paintAxis(frame: SurfaceFrame, picture: BarPicture, theme: BarTheme, axis: BarAxis): void {
  const { context, width, scale } = frame;
  const { left, floor, column, perUnit } = axis;
  const { result, name, layer } = picture;
  const { numGpus } = result.shape;
  const balance = result[name].report.layers[layer];
  context.fillStyle = theme.quiet;
  context.textAlign = "center";
  const every = Math.ceil((22 * scale) / column);
  for (let gpu = 0; gpu < numGpus; gpu += every) {
    context.fillText(String(gpu), left + (gpu + 0.5) * column, floor + 9 * scale);
  }
  if (balance === undefined) return;
  const line = (value: number, color: string, dash: readonly number[]): void => {
    const y = Math.round(floor - value * perUnit) + 0.5;
    context.strokeStyle = color;
    context.lineWidth = Math.max(1, scale);
    context.setLineDash([...dash]);
    context.beginPath();
    context.moveTo(left - 4 * scale, y);
    context.lineTo(width, y);
    context.stroke();
    context.setLineDash([]);
  };
  line(balance.lowerBound, theme.bound, [5 * scale, 3 * scale]);
  line(balance.meanLoad, theme.mean, []);
  context.textAlign = "right";
  context.fillStyle = theme.mean;
  const meanY = floor - balance.meanLoad * perUnit;
  context.fillText("mean", left - 6 * scale, meanY);
  const topY = floor - balance.maxLoad * perUnit;
  context.fillStyle = theme.quiet;
  if (meanY - topY > 11 * scale) {
    context.fillText(`${balance.maxOverMean.toFixed(2)}×`, left - 6 * scale, topY);
  }
}

export interface LayerBarsProps {
  readonly result: PlaceResult;
  readonly session: ExpertsSession;
}

export function LayerBars({ result, session }: LayerBarsProps): VNode {
  const layer = Math.min(session.layer.value, result.numLayers - 1);
  const before = result.before.report.layers[layer];
  const after = result.after.report.layers[layer];
  const most = Math.max(before?.maxLoad ?? 0, after?.maxLoad ?? 0, 1e-300) * 1.02;
  const facts = (of: typeof before): string =>
    of === undefined
      ? ""
      : `max ${formatQuantity(of.maxLoad)}, bound ${formatQuantity(of.lowerBound)}, ` +
        `mean ${formatQuantity(of.meanLoad)}`;
  return (
    <section class="bench-card" aria-label="Layer">
      <header>
        <h2>Layer {layer}: slots of each GPU</h2>
        <ul class="bar-legend" aria-label="Colours of slots">
          <li data-color="single">one slot an expert</li>
          <li data-color="replicated">replicated</li>
          {result.moved !== undefined && <li data-color="moved">moved here</li>}
          <li data-color="mean">mean</li>
          <li data-color="bound">lower bound</li>
        </ul>
        <LayerSteps session={session} layer={layer} numLayers={result.numLayers} />
      </header>
      <div class="heat-maps">
        <Bars
          result={result}
          session={session}
          name="before"
          layer={layer}
          most={most}
          facts={facts(before)}
        />
        <Bars
          result={result}
          session={session}
          name="after"
          layer={layer}
          most={most}
          facts={facts(after)}
        />
      </div>
      <GpuTable result={result} layer={layer} />
    </section>
  );
}

function LayerSteps({
  session,
  layer,
  numLayers,
}: {
  readonly session: ExpertsSession;
  readonly layer: number;
  readonly numLayers: number;
}): VNode {
  const go = (to: number): void => {
    session.layer.value = Math.min(numLayers - 1, Math.max(0, to));
  };
  return (
    <div class="actions">
      <button
        type="button"
        class="quiet-button"
        aria-label="Layer before"
        disabled={layer === 0}
        onClick={() => go(layer - 1)}
      >
        ‹
      </button>
      <button
        type="button"
        class="quiet-button"
        aria-label="Next layer"
        disabled={layer === numLayers - 1}
        onClick={() => go(layer + 1)}
      >
        ›
      </button>
    </div>
  );
}

interface BarsProps extends LayerBarsProps {
  readonly name: "before" | "after";
  readonly layer: number;
  readonly most: number;
  readonly facts: string;
}

function Bars({ result, session, name, layer, most, facts }: BarsProps): VNode {
  const { numGpus } = result.shape;
  const cell = within(session.cell.value, result);
  const gpu = cell === null ? null : cell.gpu;
  const canvas = useCanvas(readBarTheme, (frame, theme) =>
    paintBars(frame, { result, name, layer, gpu, most }, theme),
  );
  return (
    <figure class="heat-map">
      <figcaption>
        <strong>{name === "before" ? "Before" : "After"}</strong> <span>{facts}</span>
      </figcaption>
      <canvas
        class="bars-canvas"
        ref={canvas}
        role="img"
        aria-label={`Bars of layer ${layer} ${name}: ${facts}. The table below says the same.`}
        onPointerMove={(event) => {
          const { clientWidth } = event.currentTarget;
          const at = ((event.offsetX - LEFT_PX) / (clientWidth - LEFT_PX)) * numGpus;
          const under = Math.floor(at);
          session.cell.value = under >= 0 && under < numGpus ? { layer, gpu: under } : null;
        }}
        onPointerLeave={() => {
          session.cell.value = null;
        }}
      />
    </figure>
  );
}

/** The bars in words. */
function GpuTable({
  result,
  layer,
}: {
  readonly result: PlaceResult;
  readonly layer: number;
}): VNode {
  const { numGpus, numNodes } = result.shape;
  const loads = (name: "before" | "after") => result[name].report.layers[layer]?.gpuLoads;
  return (
    <details>
      <summary>Layer {layer} as a table</summary>
      <div class="bench-table-scroll">
        <table class="bench-table">
          <thead>
            <tr>
              <th scope="col">GPU</th>
              <th scope="col">Node</th>
              <th scope="col">Load before</th>
              <th scope="col">Load after</th>
              <th scope="col">Holds after</th>
            </tr>
          </thead>
          <tbody>
            {Array.from({ length: numGpus }, (_, gpu) => (
              <tr key={gpu}>
                <th scope="row">{gpu}</th>
                <td data-number>{Math.floor((gpu * numNodes) / numGpus)}</td>
                <td data-number>{formatCount(loads("before")?.[gpu])}</td>
                <td data-number>{formatCount(loads("after")?.[gpu])}</td>
                <td class="why">{slotTexts(result, "after", { layer, gpu })}</td>
              </tr>
            ))}
          </tbody>
        </table>
      </div>
    </details>
  );
}
