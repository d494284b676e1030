// The names of the lanes: real buttons beside the canvas, which fold a process or a lane.

import { useSignal, useSignalEffect } from "@preact/signals";
import type { VNode } from "preact";
import { useLayoutEffect, useRef } from "preact/hooks";
import { formatLarge } from "../../../ui/format.ts";
import type { Band } from "../timeline/lanes.ts";
import type { TimelineState } from "./state.ts";

/** Bands beyond the visible part that keep their buttons, in CSS pixels. */
const BEYOND_PX = 600;

export function Gutter({ state }: { readonly state: TimelineState }): VNode {
  const place = useRef<HTMLDivElement>(null);
  const layout = state.layout.value;
  // Thousands of lanes must not be thousands of elements.
  const window = useSignal({ top: 0, bottom: 2 * BEYOND_PX });
  const look = (): void => {
    const scroll = place.current?.parentElement;
    if (!scroll) return;
    const { scrollTop, clientHeight } = scroll;
    const { top, bottom } = window.peek();
    const near = scrollTop >= top && scrollTop + clientHeight <= bottom;
    if (near && bottom - top < clientHeight + 4 * BEYOND_PX) return;
    window.value = { top: scrollTop - BEYOND_PX, bottom: scrollTop + clientHeight + BEYOND_PX };
  };
  useLayoutEffect(() => {
    const scroll = place.current?.parentElement;
    if (!scroll) return;
    const resizing = new ResizeObserver(look);
    resizing.observe(scroll);
    scroll.addEventListener("scroll", look, { passive: true });
    return () => {
      resizing.disconnect();
      scroll.removeEventListener("scroll", look);
    };
  }, []);
  useSignalEffect(() => {
    void state.layout.value;
    look();
  });
  const { top, bottom } = window.value;
  const shown = layout.bands.filter(({ y, height }) => y + height >= top && y <= bottom);
  return (
    <div class="timeline-gutter" ref={place} style={{ height: `${layout.height}px` }}>
      {shown.map((band) => (
        <LaneName key={band.key} band={band} state={state} />
      ))}
    </div>
  );
}

function LaneName({ band, state }: { readonly band: Band; readonly state: TimelineState }): VNode {
  const style = { top: `${band.y}px`, height: `${band.height}px` };
  if (band.kind === "counter") {
    const track = state.data.counters[band.counter];
    return (
      <div class="lane-name" data-kind="counter" style={style} title={band.title}>
        <span>{band.title}</span>
        {track !== undefined && <span class="lane-max">max {formatLarge(track.max)}</span>}
      </div>
    );
  }
  return (
    <button
      type="button"
      class="lane-name"
      data-kind={band.kind}
      aria-expanded={!band.folded}
      style={style}
      title={band.title}
      onClick={() => state.toggleFold(band.key)}
    >
      <svg class="fold" viewBox="0 0 8 8" width="8" height="8" aria-hidden="true">
        <path d="M1 2.5 4 5.5 7 2.5" />
      </svg>
      <span>{band.title}</span>
    </button>
  );
}
