// The canvases of the timeline in their frame: overview, head, names of the lanes, the lanes, and
// what the pointer is over in words.

import type { VNode } from "preact";
import { useLayoutEffect, useRef } from "preact/hooks";
import { formatUs } from "../../../ui/time-axis.ts";
import { slotName } from "../timeline/trace-data.ts";
import { briefName } from "./brief-name.ts";
import { TimelineController, type TimelineHost } from "./controller.ts";
import { Gutter } from "./gutter.tsx";
import { followPointer } from "./pointer.ts";
import type { TimelineState } from "./state.ts";

export interface TimelineProps {
  readonly state: TimelineState;
  readonly controller: { current: TimelineController | null };
  readonly host: TimelineHost;
}

/** Makes the controller once the canvases are there; it lives as long as they do. */
function useController({ state, controller, host }: TimelineProps) {
  const overview = useRef<HTMLCanvasElement>(null);
  const head = useRef<HTMLCanvasElement>(null);
  const lanes = useRef<HTMLCanvasElement>(null);
  const scroll = useRef<HTMLDivElement>(null);
  const latestHost = useRef(host);
  latestHost.current = host;
  useLayoutEffect(() => {
    const elements = {
      overview: overview.current as HTMLCanvasElement,
      head: head.current as HTMLCanvasElement,
      lanes: lanes.current as HTMLCanvasElement,
      scroll: scroll.current as HTMLDivElement,
    };
    const made = new TimelineController(state, elements, {
      focusSearch: () => latestHost.current.focusSearch(),
      showHelp: () => latestHost.current.showHelp(),
    });
    controller.current = made;
    const pointer = followPointer(made, elements);
    const fitting = keepAligned(elements);
    made.scrollToWork();
    return () => {
      controller.current = null;
      fitting[Symbol.dispose]();
      pointer[Symbol.dispose]();
      made[Symbol.dispose]();
    };
  }, [state, controller]);
  return { overview, head, lanes, scroll };
}

export function Timeline(props: TimelineProps): VNode {
  const { overview, head, lanes, scroll } = useController(props);
  const { state } = props;
  const { data } = state;
  return (
    <section class="timeline" aria-label="Timeline">
      <div class="timeline-corner" aria-hidden="true">
        Overview
      </div>
      <canvas
        class="timeline-overview"
        ref={overview}
        role="img"
        aria-label="The whole trace, with the visible part in a frame"
      />
      <BandLegend />
      <canvas
        class="timeline-head"
        ref={head}
        role="img"
        aria-label="Time axis, and below it computation, communication and their overlap"
      />
      <div class="timeline-scroll" ref={scroll} tabIndex={-1}>
        <Gutter state={state} />
        <div
          class="timeline-lanes"
          role="application"
          // biome-ignore lint/a11y/noNoninteractiveTabindex: an application takes keys
          tabIndex={0}
          aria-label={
            `Timeline of ${data.title}. Keys w a s d move, slash searches, question mark lists ` +
            "all keys. What is selected is described below."
          }
        >
          <canvas
            ref={lanes}
            role="img"
            aria-label={
              `${data.rows.event.length.toLocaleString("en-US")} slices in ` +
              `${data.lanes.length} lanes over ${formatUs(data.spanUs)}`
            }
          />
          <Tooltip state={state} />
        </div>
      </div>
    </section>
  );
}

/** The lanes' canvas stays in sight while its element scrolls; the head is as wide as it is. */
function keepAligned({
  lanes,
  head,
  overview,
  scroll,
}: Record<"lanes" | "head" | "overview", HTMLCanvasElement> & { scroll: HTMLElement }): Disposable {
  const fit = (): void => {
    lanes.style.height = `${scroll.clientHeight}px`;
    const bar = scroll.offsetWidth - scroll.clientWidth;
    head.style.width = overview.style.width = `calc(100% - ${bar}px)`;
  };
  const resizing = new ResizeObserver(fit);
  resizing.observe(scroll);
  fit();
  return { [Symbol.dispose]: () => resizing.disconnect() };
}

function BandLegend(): VNode {
  return (
    <ul class="band-legend" aria-label="Overlap band">
      <li data-color="exposed">Exposed communication</li>
      <li data-color="computation">Computation alone</li>
      <li data-color="both">Both at once</li>
    </ul>
  );
}

/** CSS pixels a tooltip needs to the right of the pointer, and below it. */
const TOOLTIP_WIDTH_PX = 340;
const TOOLTIP_HEIGHT_PX = 84;

/** The pointed-at slice, beside the pointer where there is room. */
function Tooltip({ state }: { readonly state: TimelineState }): VNode | null {
  const place = useRef<HTMLDivElement>(null);
  const hover = state.hover.value;
  const { data } = state;
  const { rows } = data;
  const canvas = place.current?.parentElement;
  const toLeft = hover !== null && hover.x > (canvas?.clientWidth ?? 0) - TOOLTIP_WIDTH_PX;
  const above = hover !== null && hover.y > (canvas?.clientHeight ?? 0) - TOOLTIP_HEIGHT_PX;
  const x = (hover?.x ?? 0) + (toLeft ? -12 : 14);
  const y = (hover?.y ?? 0) + (above ? -10 : 16);
  const startUs = rows.start[hover?.slot ?? 0] as number;
  return (
    <div
      ref={place}
      class="timeline-tooltip"
      aria-hidden="true"
      hidden={hover === null}
      data-side={`${above ? "above" : "below"} ${toLeft ? "left" : "right"}`}
      style={{ left: `${x}px`, top: `${y}px` }}
    >
      {hover !== null && (
        <>
          <strong>{briefName(slotName(data, hover.slot))}</strong>
          <span>
            {formatUs((rows.end[hover.slot] as number) - startUs)}{" "}
            <span class="unit">at {formatUs(startUs)}</span>
          </span>
        </>
      )}
    </div>
  );
}
