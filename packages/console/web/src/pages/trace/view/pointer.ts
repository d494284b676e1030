// Mouse, pen, finger and wheel on the timeline's canvases, as calls on the controller. A drag moves
// the lanes; with Shift, or on the axis, it selects a range of time; in the overview it moves the
// view.

import { NONE } from "../timeline/rows.ts";
import type { TimelineController, TimelineElements } from "./controller.ts";

/** CSS pixels a pointer may tremble within a click. */
const CLICK_PX = 4;
/** What a line of a wheel that counts in lines is in pixels. */
const LINE_PX = 16;

interface Drag {
  readonly kind: "pan" | "range" | "overview";
  readonly startX: number;
  readonly startY: number;
  /** Time under the pointer when it went down. */
  readonly fromUs: number;
  x: number;
  y: number;
  moved: boolean;
}

/** Listens until it is disposed. */
export function followPointer(
  controller: TimelineController,
  elements: TimelineElements,
): Disposable {
  const listening = new AbortController();
  const { signal } = listening;
  const { lanes, head, overview, scroll } = elements;
  const on = <K extends "pointermove" | "pointerdown" | "pointerup" | "pointercancel">(
    target: HTMLElement,
    type: K,
    handle: (event: HTMLElementEventMap[K]) => void,
  ): void => target.addEventListener(type, handle, { signal });
  let drag: Drag | undefined;

  const begin = (kind: Drag["kind"], event: PointerEvent): void => {
    if (event.button !== 0) return;
    (event.currentTarget as HTMLElement).setPointerCapture(event.pointerId);
    const { offsetX: x, offsetY: y } = event;
    const fromUs = controller.timeAt(x);
    drag = { kind, startX: x, startY: y, fromUs, x, y, moved: false };
    if (kind === "overview") controller.centerAt(x / overview.clientWidth);
  };
  const move = (event: PointerEvent): void => {
    if (drag === undefined) return;
    const { offsetX: x, offsetY: y } = event;
    drag.moved ||= Math.hypot(x - drag.startX, y - drag.startY) > CLICK_PX;
    if (drag.moved) applyDrag(controller, elements, drag, { x, y });
    drag.x = x;
    drag.y = y;
  };
  const end = (event: PointerEvent): void => {
    const ended = drag;
    drag = undefined;
    if (ended === undefined || event.type === "pointercancel" || ended.moved) return;
    if (ended.kind === "pan") {
      controller.state.range.value = null;
      controller.state.selected.value = controller.slotUnder(ended.x, ended.y);
    } else if (ended.kind === "range") controller.state.range.value = null;
  };

  on(lanes, "pointerdown", (event) => begin(event.shiftKey ? "range" : "pan", event));
  on(head, "pointerdown", (event) => begin("range", event));
  on(overview, "pointerdown", (event) => begin("overview", event));
  for (const canvas of [lanes, head, overview]) {
    on(canvas, "pointermove", move);
    on(canvas, "pointerup", end);
    on(canvas, "pointercancel", end);
  }
  on(lanes, "pointermove", (event) => {
    if (drag === undefined || drag.kind === "range") {
      controller.hover({ x: event.offsetX, y: event.offsetY });
    } else controller.hover(null);
  });
  on(head, "pointermove", (event) => controller.hover({ x: event.offsetX }));
  lanes.addEventListener("pointerleave", () => controller.hover(null), { signal });
  head.addEventListener("pointerleave", () => controller.hover(null), { signal });
  lanes.addEventListener(
    "dblclick",
    (event) => {
      if (controller.slotUnder(event.offsetX, event.offsetY) !== NONE) controller.run("fit");
    },
    { signal },
  );
  for (const canvas of [lanes, head]) {
    const options = { signal, passive: false };
    canvas.addEventListener("wheel", (event) => turn(controller, event), options);
  }
  scroll.addEventListener("scroll", () => controller.invalidate(), { signal, passive: true });
  return { [Symbol.dispose]: () => listening.abort() };
}

function applyDrag(
  controller: TimelineController,
  { scroll, overview }: TimelineElements,
  drag: Drag,
  { x, y }: { readonly x: number; readonly y: number },
): void {
  if (drag.kind === "overview") controller.centerAt(x / overview.clientWidth);
  else if (drag.kind === "range") {
    const toUs = controller.timeAt(x);
    controller.state.selected.value = NONE;
    controller.state.range.value = {
      startUs: Math.min(drag.fromUs, toUs),
      endUs: Math.max(drag.fromUs, toUs),
    };
  } else {
    controller.panBy(drag.x - x);
    scroll.scrollTop += drag.y - y;
  }
}

/** Ctrl zooms, sideways moves; up and down is left to the scrolling element. */
function turn(controller: TimelineController, event: WheelEvent): void {
  const unit = event.deltaMode === WheelEvent.DOM_DELTA_LINE ? LINE_PX : 1;
  const sideways = event.shiftKey && event.deltaX === 0 ? event.deltaY : event.deltaX;
  if (event.ctrlKey || event.metaKey) {
    event.preventDefault();
    controller.zoomAt(Math.exp(event.deltaY * unit * 0.0022), event.offsetX);
  } else if (event.shiftKey || Math.abs(event.deltaX) > Math.abs(event.deltaY)) {
    event.preventDefault();
    controller.panBy(sideways * unit);
  }
}
