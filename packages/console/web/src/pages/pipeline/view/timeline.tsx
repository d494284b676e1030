// The two canvases of a pipeline in their frame, with the legend and what is pointed at in words.

import { OpKind } from "@open-infra/dualpipe";
import type { VNode } from "preact";
import { useEffect, useLayoutEffect, useMemo, useRef } from "preact/hooks";
import { directionOf } from "../../trace/view/keys.ts";
import type { PipelineResult } from "../compute.ts";
import type { PipelineSession } from "../session.ts";
import { type CellRef, cellText, formatTime, transfersOf } from "../timeline/cells.ts";
import { PipelineController } from "../timeline/controller.ts";
import { AXIS_PX, MEMORY_TOP_PX, pipelineLayout } from "../timeline/layout.ts";
import { heldAt } from "../timeline/rows.ts";
import { followPointer } from "./pointer.ts";

export interface PipelineTimelineProps {
  readonly result: PipelineResult;
  readonly session: PipelineSession;
}

function useController({ result, session }: PipelineTimelineProps) {
  const cells = useRef<HTMLCanvasElement>(null);
  const memory = useRef<HTMLCanvasElement>(null);
  const controller = useRef<PipelineController | null>(null);
  const first = useRef(result);
  useLayoutEffect(() => {
    const canvases = {
      cells: cells.current as HTMLCanvasElement,
      memory: memory.current as HTMLCanvasElement,
    };
    const made = new PipelineController(session, canvases, first.current);
    controller.current = made;
    const pointer = followPointer(made, canvases);
    return () => {
      controller.current = null;
      pointer[Symbol.dispose]();
      made[Symbol.dispose]();
    };
  }, [session]);
  useLayoutEffect(() => controller.current?.show(result), [result]);
  const critical = session.showCritical.value;
  useLayoutEffect(() => controller.current?.invalidate(), [critical, result]);
  return { cells, memory, controller };
}

export function PipelineTimeline(props: PipelineTimelineProps): VNode {
  const { result, session } = props;
  const { cells, memory, controller } = useController(props);
  useKeys(controller);
  const { schedule } = result;
  const layout = pipelineLayout(schedule.numRanks);
  const cellsHeight = AXIS_PX + layout.rows * layout.cellRow;
  const memoryHeight = MEMORY_TOP_PX + layout.rows * layout.memoryRow + 2;
  const peak = Math.max(...result.peakActivations);
  return (
    <section class="bench-card pipeline-card" aria-label="Timeline">
      <header>
        <PipelineLegend result={result} />
        <label class="check">
          <input
            type="checkbox"
            checked={session.showCritical.value}
            onChange={({ currentTarget }) => {
              session.showCritical.value = currentTarget.checked;
            }}
          />
          Critical path
        </label>
      </header>
      <div
        class="pipeline-canvases"
        role="application"
        // biome-ignore lint/a11y/noNoninteractiveTabindex: an application takes keys
        tabIndex={0}
        aria-label={
          "Timeline. Keys w and s zoom, a and d move, 0 shows all; comma and point choose the " +
          "cell before and after, the arrows up and down another rank, f shows it large."
        }
        onKeyDown={(event) => stepWith(controller.current, event)}
      >
        <canvas
          class="pipeline-cells"
          ref={cells}
          style={{ height: `${cellsHeight}px` }}
          role="img"
          aria-label={
            `${result.numOperations.toLocaleString("en-US")} operations of ${schedule.numRanks} ` +
            `ranks over ${formatTime(result.makespan)}`
          }
        />
        <p class="memory-title">Micro-batches held</p>
        <canvas
          class="pipeline-memory"
          ref={memory}
          style={{ height: `${memoryHeight}px` }}
          role="img"
          aria-label={`Micro-batches each rank holds over time, ${peak} at most`}
        />
      </div>
      <Readout result={result} cell={session.cell.value} controller={controller} />
    </section>
  );
}

/** Keys of the focused timeline alone; the arrows belong to the page elsewhere. */
function stepWith(controller: PipelineController | null, event: KeyboardEvent): void {
  if (controller === null || event.ctrlKey || event.metaKey || event.altKey) return;
  const steps: Readonly<Record<string, () => void>> = {
    ",": () => controller.step(-1, 0),
    ".": () => controller.step(1, 0),
    ArrowUp: () => controller.step(0, -1),
    ArrowDown: () => controller.step(0, 1),
    ArrowLeft: () => controller.step(-1, 0),
    ArrowRight: () => controller.step(1, 0),
    f: () => controller.fit(),
    Escape: () => controller.choose(null),
  };
  const step = steps[event.key];
  if (step === undefined) return;
  event.preventDefault();
  step();
}

/** w a s d and 0 work anywhere on the page, but in fields. */
function useKeys(controller: { readonly current: PipelineController | null }): void {
  useEffect(() => {
    const listening = new AbortController();
    const { signal } = listening;
    const onKeyDown = (event: KeyboardEvent): void => {
      if (event.ctrlKey || event.metaKey || event.altKey || isTyping(event.target)) return;
      const direction = event.key.startsWith("Arrow") ? undefined : directionOf(event.key);
      if (direction !== undefined) controller.current?.press(direction);
      else if (event.key === "0") controller.current?.whole();
      else return;
      event.preventDefault();
    };
    const onKeyUp = (event: KeyboardEvent): void => {
      const direction = directionOf(event.key);
      if (direction !== undefined) controller.current?.release(direction);
    };
    addEventListener("keydown", onKeyDown, { signal });
    addEventListener("keyup", onKeyUp, { signal });
    addEventListener("blur", () => controller.current?.halt(), { signal });
    return () => listening.abort();
  }, [controller]);
}

function isTyping(target: EventTarget | null): boolean {
  const fields = "input:not([type=checkbox]), textarea, select, dialog";
  return target instanceof Element && target.closest(fields) !== null;
}

const kinds = [
  [OpKind.F, "f", "forward"],
  [OpKind.B, "b", "backward"],
  [OpKind.I, "i", "input’s gradients"],
  [OpKind.W, "w", "weights’ gradients"],
] as const;

function kindsOf({ schedule }: PipelineResult): ReadonlySet<number> {
  const used = new Set<number>();
  for (const { kind } of schedule.ranks) for (const k of kind) used.add(k);
  return used;
}

/** Colours that occur; with two directions each has two. */
function PipelineLegend({ result }: { readonly result: PipelineResult }): VNode {
  const used = useMemo(() => kindsOf(result), [result]);
  const pairs = used.has(OpKind.FB);
  const both = result.schedule.numDirections === 2;
  return (
    <ul class="pipeline-legend" aria-label="Colours">
      {kinds
        .filter(([kind]) => used.has(kind) || (pairs && kind <= OpKind.B))
        .map(([kind, name, text]) => (
          <li key={kind}>
            <span class={`cell-swatch ${name}`} aria-hidden="true" />
            {both && <span class={`cell-swatch ${name} other`} aria-hidden="true" />}
            {text}
          </li>
        ))}
      {both && <li>pale: ←</li>}
      {pairs && (
        <li>
          overlapped: two halves, or <span class="cell-swatch fb" aria-hidden="true" />
        </li>
      )}
    </ul>
  );
}

/** Where a cell's inputs come from, and where its results go. */
function partnersText({ schedule }: PipelineResult, cell: CellRef): string {
  const transfers = transfersOf(schedule, cell);
  const parts = (["forward", "backward"] as const).flatMap((name) => {
    const ends = transfers
      .filter(({ flow }) => flow === name)
      .map(({ from, to }) => (from === cell ? `to rank ${to.rank}` : `from rank ${from.rank}`));
    return ends.length === 0 ? [] : [`${name} ${ends.join(" and ")}`];
  });
  return parts.length === 0 ? "" : `; transfers: ${parts.join(", ")}`;
}

function Readout({
  result,
  cell,
  controller,
}: {
  readonly result: PipelineResult;
  readonly cell: CellRef | null;
  readonly controller: { readonly current: PipelineController | null };
}): VNode {
  const times = cell === null ? undefined : result.timeline[cell.rank];
  const start = cell === null ? undefined : times?.start[cell.index];
  if (cell === null || start === undefined) {
    const { rows, numRanks } = pipelineLayout(result.schedule.numRanks);
    return (
      <p class="bench-readout pipeline-readout" role="status">
        Point at a cell. <kbd>w</kbd> <kbd>s</kbd> or Ctrl+wheel zoom, <kbd>a</kbd> <kbd>d</kbd> or
        a drag move, <kbd>0</kbd> shows all.
        {rows < numRanks && ` Of ${numRanks} ranks ${rows} are in sight; the wheel moves them.`}
      </p>
    );
  }
  const curve = controller.current?.curve(cell.rank);
  const held = curve === undefined ? 0 : heldAt(curve, start);
  const partners = partnersText(result, cell);
  return (
    <p class="bench-readout pipeline-readout" role="status">
      <strong>Rank {cell.rank}.</strong> {cellText(result, cell, held)}
      {partners}.
    </p>
  );
}
