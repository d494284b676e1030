// An open trace: figures, search, timeline, and below it what is selected beside what took the
// time.

import type { VNode } from "preact";
import { useEffect, useMemo, useRef, useState } from "preact/hooks";
import type { TracePhase, TraceSession } from "../session.ts";
import { rangeStats } from "../timeline/range-stats.ts";
import { rangeInput } from "../timeline/trace-data.ts";
import type { TimelineController } from "./controller.ts";
import { Figures } from "./figures.tsx";
import { HelpDialog } from "./help-dialog.tsx";
import { actionOf, directionOf } from "./keys.ts";
import { Notes } from "./notes.tsx";
import { SelectionPanel } from "./selection-panel.tsx";
import { Timeline } from "./timeline.tsx";
import { Toolbar } from "./toolbar.tsx";
import { WorkTable } from "./work-table.tsx";

export interface TraceViewProps {
  readonly open: Extract<TracePhase, { kind: "open" }>;
  readonly session: TraceSession;
}

export function TraceView({ open, session }: TraceViewProps): VNode {
  const { state } = open;
  const controller = useRef<TimelineController | null>(null);
  const searchField = useRef<HTMLInputElement>(null);
  const [help, setHelp] = useState(false);
  const input = useMemo(() => rangeInput(state.data), [state]);
  const whole = useMemo(() => rangeStats(input, state.data.work), [input, state]);
  const range = state.range.value;
  const stats = useMemo(
    () => (range === null ? whole : rangeStats(input, range)),
    [input, range, whole],
  );
  useKeys(controller);
  const host = {
    focusSearch: () => searchField.current?.select(),
    showHelp: () => setHelp(true),
  };
  return (
    <>
      <Figures stats={whole} open={open} />
      <Notes notes={state.data.notes} />
      <Toolbar
        open={open}
        session={session}
        controller={controller}
        searchField={searchField}
        onHelp={() => setHelp(true)}
      />
      <Timeline state={state} controller={controller} host={host} />
      <div class="trace-panels">
        <SelectionPanel open={open} controller={controller} stats={range === null ? null : stats} />
        <WorkTable state={state} stats={stats} controller={controller} />
      </div>
      {help && <HelpDialog onClose={() => setHelp(false)} />}
    </>
  );
}

/** Keys work anywhere on the page, but in fields and dialogs. */
function useKeys(controller: { readonly current: TimelineController | null }): void {
  useEffect(() => {
    const listening = new AbortController();
    const { signal } = listening;
    const onKeyDown = (event: KeyboardEvent): void => {
      const action = actionOf(event);
      if (action === undefined || event.defaultPrevented || isTyping(event.target)) return;
      event.preventDefault();
      controller.current?.press(action);
    };
    const onKeyUp = (event: KeyboardEvent): void => {
      const direction = directionOf(event.key);
      if (direction !== undefined) controller.current?.release(direction);
    };
    const halt = (): void => controller.current?.halt();
    addEventListener("keydown", onKeyDown, { signal });
    addEventListener("keyup", onKeyUp, { signal });
    addEventListener("blur", halt, { signal });
    return () => listening.abort();
  }, [controller]);
}

function isTyping(target: EventTarget | null): boolean {
  // A box that was just ticked keeps the focus, but takes no letters.
  const fields = "input:not([type=checkbox]), textarea, select, dialog";
  return target instanceof Element && target.closest(fields) !== null;
}
