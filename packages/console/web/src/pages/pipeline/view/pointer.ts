// Mouse, pen, finger and wheel on the pipeline's canvases, as calls on the controller. A drag
// moves; Ctrl and the wheel zoom at the pointer; the wheel alone moves ranks that are out of
// sight, and scrolls the page where all are in it.

import type { PipelineCanvases, PipelineController } from "../timeline/controller.ts";

/** What a line of a wheel that counts in lines is in pixels. */
const LINE_PX = 16;

/** Listens until it is disposed. */
export function followPointer(
  controller: PipelineController,
  canvases: PipelineCanvases,
): Disposable {
  const listening = new AbortController();
  const { signal } = listening;
  for (const name of ["cells", "memory"] as const) {
    const canvas = canvases[name];
    let drag: { x: number; y: number } | undefined;
    canvas.addEventListener(
      "pointerdown",
      (event) => {
        if (event.button !== 0) return;
        canvas.setPointerCapture(event.pointerId);
        drag = { x: event.offsetX, y: event.offsetY };
      },
      { signal },
    );
    canvas.addEventListener(
      "pointermove",
      (event) => {
        const { offsetX: x, offsetY: y } = event;
        if (drag === undefined) {
          controller.point(name, x, y);
          return;
        }
        controller.panBy(drag.x - x, drag.y - y);
        drag = { x, y };
      },
      { signal },
    );
    const end = (): void => {
      drag = undefined;
    };
    canvas.addEventListener("pointerup", end, { signal });
    canvas.addEventListener("pointercancel", end, { signal });
    canvas.addEventListener("pointerleave", () => controller.leave(), { signal });
    canvas.addEventListener("dblclick", () => controller.fit(), { signal });
    canvas.addEventListener("wheel", (event) => onWheel(controller, event), {
      signal,
      passive: false,
    });
  }
  return { [Symbol.dispose]: () => listening.abort() };
}

function onWheel(controller: PipelineController, event: WheelEvent): void {
  const unit = event.deltaMode === WheelEvent.DOM_DELTA_LINE ? LINE_PX : 1;
  if (event.ctrlKey || event.metaKey) {
    event.preventDefault();
    controller.zoomAt(event.offsetX, Math.exp(event.deltaY * unit * 0.002));
    return;
  }
  const sideways = event.shiftKey && event.deltaX === 0;
  const dx = (sideways ? event.deltaY : event.deltaX) * unit;
  const moved = controller.panBy(dx, sideways ? 0 : event.deltaY * unit);
  if (moved || dx !== 0) event.preventDefault();
}
