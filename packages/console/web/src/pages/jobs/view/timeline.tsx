// What ran where and when: a bar for each attempt, lanes below each other for each executor,
// drawn on a canvas so that ten thousand of them are no matter.

import type { VNode } from "preact";
import { useMemo, useState } from "preact/hooks";
import type { SurfaceFrame } from "../../../ui/canvas-surface.ts";
import { cssOf, mix, type Rgb } from "../../../ui/colors.ts";
import { formatCount, formatMs } from "../../../ui/format.ts";
import { formatTick, ticksBetween } from "../../../ui/time-axis.ts";
import { tokenReader } from "../../../ui/tokens.ts";
import { useCanvas } from "../../../ui/use-canvas.ts";
import type { Shown } from "../session.ts";
import { barAt, type LaneBar, type Lanes, lanesOf } from "./lanes.ts";

const axisPx = 22;
const gutterPx = 96;
const laneMaxPx = 16;
const laneMinPx = 3;
const heightMaxPx = 420;
/** A bar is found this close to the pointer. */
const slackPx = 3;

const stepTokens = [
  ...["work-attention", "work-gemm", "work-dispatch", "work-memory", "work-layer", "work-combine"],
  ...["work-cast", "work-permute", "work-plain-1", "work-plain-3", "work-plain-4", "work-notify"],
];

interface Theme {
  readonly steps: readonly Rgb[];
  readonly ink: Rgb;
  readonly line: Rgb;
  readonly panel: Rgb;
  readonly alert: Rgb;
}

function readTheme(element: Element): Theme {
  const read = tokenReader(element);
  const [ink, line, panel, alert] = ["ink-3", "line", "panel", "alert"].map(read) as [
    ...[Rgb, Rgb, Rgb, Rgb],
  ];
  return { steps: stepTokens.map(read), ink, line, panel, alert };
}

export function TaskTimeline({ shown }: { readonly shown: Shown }): VNode {
  const { view, nowMs } = shown;
  const [pointed, setPointed] = useState<LaneBar | undefined>();
  const lanes = useMemo(() => lanesOf(view.attempts, nowMs), [view, nowMs, view.attempts.length]);
  const laneHeight = Math.max(
    laneMinPx,
    Math.min(laneMaxPx, Math.floor((heightMaxPx - axisPx) / Math.max(1, lanes.lanes))),
  );
  const steps = [...view.steps.keys()];
  const canvas = useCanvas(readTheme, (frame, theme) =>
    paint(frame, theme, { lanes, laneHeight, steps, pointed }),
  );
  const find = (event: PointerEvent): void => {
    const { left, top, width } = (event.currentTarget as Element).getBoundingClientRect();
    const span = lanes.endMs - lanes.startMs;
    const perPx = span / Math.max(1, width - gutterPx);
    const timeMs = lanes.startMs + (event.clientX - left - gutterPx) * perPx;
    const lane = Math.floor((event.clientY - top - axisPx) / laneHeight);
    setPointed(barAt(lanes, lane, timeMs, slackPx * perPx));
  };
  return (
    <section class="bench-card" aria-label="Tasks over time">
      <header>
        <h2>Tasks over time</h2>
        <p>A bar is an attempt; hatched ones failed or were ended.</p>
      </header>
      <canvas
        ref={canvas}
        class="jobs-timeline"
        style={{ height: `${axisPx + Math.max(1, lanes.lanes) * laneHeight}px` }}
        data-bars={lanes.bars.length}
        data-lanes={lanes.lanes}
        onPointerMove={find}
        onPointerLeave={() => setPointed(undefined)}
      />
      <p class="bench-readout jobs-readout">{pointed === undefined ? " " : textOf(pointed)}</p>
    </section>
  );
}

function textOf({ attempt, startMs, endMs }: LaneBar): string {
  const { node, key, executor, outcome, rows, attempt: number } = attempt;
  const which = number === 0 ? "" : `, attempt ${number + 1}`;
  const many = rows === undefined ? "" : `, ${formatCount(rows)} rows`;
  const took = formatMs(endMs - startMs);
  return `${node} ${key.slice(0, 8)}${which} on ${executor}: ${outcome}, ${took}${many}`;
}

interface Picture {
  readonly lanes: Lanes;
  readonly laneHeight: number;
  readonly steps: readonly string[];
  readonly pointed: LaneBar | undefined;
}

function paint(frame: SurfaceFrame, theme: Theme, picture: Picture): void {
  const { context, width, height, scale } = frame;
  context.setTransform(scale, 0, 0, scale, 0, 0);
  context.fillStyle = cssOf(theme.panel);
  context.fillRect(0, 0, width / scale, height / scale);
  const room = width / scale - gutterPx;
  const { startMs, endMs } = picture.lanes;
  const toX = (ms: number): number =>
    gutterPx + ((ms - startMs) / Math.max(1, endMs - startMs)) * room;
  paintAxis(context, theme, picture.lanes, toX, { room, height: height / scale });
  paintGroups(context, theme, picture, width / scale);
  const colors = new Map(
    picture.steps.map((step, i) => [step, theme.steps[i % theme.steps.length] as Rgb]),
  );
  for (const bar of picture.lanes.bars) {
    paintBar(context, theme, bar, {
      x: toX(bar.startMs),
      end: toX(bar.endMs),
      y: axisPx + bar.lane * picture.laneHeight,
      tall: picture.laneHeight - (picture.laneHeight > 5 ? 2 : 1),
      color: colors.get(bar.attempt.node) ?? theme.ink,
      isPointed: bar.attempt === picture.pointed?.attempt,
    });
  }
}

function paintAxis(
  context: CanvasRenderingContext2D,
  theme: Theme,
  { startMs, endMs }: Lanes,
  toX: (ms: number) => number,
  { room, height }: { readonly room: number; readonly height: number },
): void {
  const { stepUs, timesUs } = ticksBetween(0, (endMs - startMs) * 1000, room, 90);
  context.font = "11px ui-monospace, monospace";
  context.textBaseline = "middle";
  for (const us of timesUs) {
    const x = Math.round(toX(startMs + us / 1000)) + 0.5;
    context.fillStyle = cssOf(theme.line);
    context.fillRect(x, axisPx - 4, 1, height - axisPx + 4);
    context.fillStyle = cssOf(theme.ink);
    context.fillText(formatTick(us, stepUs), x + 4, axisPx / 2);
  }
}

function paintGroups(
  context: CanvasRenderingContext2D,
  theme: Theme,
  { lanes, laneHeight }: Picture,
  width: number,
): void {
  for (const { executor, firstLane, lanes: count } of lanes.groups) {
    const y = axisPx + firstLane * laneHeight;
    context.fillStyle = cssOf(theme.line);
    context.fillRect(0, y - 0.5, width, 1);
    context.fillStyle = cssOf(theme.ink);
    if (count * laneHeight >= 11) {
      context.fillText(executor, 2, y + Math.min(count * laneHeight, laneMaxPx) / 2, gutterPx - 8);
    }
  }
}

function paintBar(
  context: CanvasRenderingContext2D,
  theme: Theme,
  { attempt }: LaneBar,
  at: {
    readonly x: number;
    readonly end: number;
    readonly y: number;
    readonly tall: number;
    readonly color: Rgb;
    readonly isPointed: boolean;
  },
): void {
  const wide = Math.max(1, at.end - at.x - 0.5);
  const { outcome } = attempt;
  const isBad = outcome === "failed" || outcome === "retried";
  const isRunning = attempt.endMs === undefined;
  const color = isBad ? theme.alert : at.color;
  context.fillStyle = cssOf(isRunning ? mix(color, theme.panel, 0.6) : color);
  context.fillRect(at.x, at.y, wide, at.tall);
  if (isBad || outcome === "stopped") {
    context.fillStyle = cssOf(theme.panel, 0.55);
    for (let x = at.x + 3; x < at.x + wide; x += 6) {
      context.fillRect(x, at.y, Math.min(3, at.x + wide - x), at.tall);
    }
  }
  if (at.isPointed) {
    context.strokeStyle = cssOf(theme.ink);
    context.lineWidth = 1.5;
    context.strokeRect(at.x, at.y, wide, at.tall);
  }
}
