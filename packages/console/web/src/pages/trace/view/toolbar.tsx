// Search, the legend of the colours, and what can be done with the trace as a whole.

import type { RefObject, VNode } from "preact";
import { useState } from "preact/hooks";
import { formatCount } from "../../../ui/format.ts";
import type { TracePhase, TraceSession } from "../session.ts";
import { workKinds } from "../timeline/palette.ts";
import type { TimelineController } from "./controller.ts";
import { OpenFileButton } from "./opening.tsx";
import { saveTrace } from "./save.ts";
import type { TimelineState } from "./state.ts";

export interface ToolbarProps {
  readonly open: Extract<TracePhase, { kind: "open" }>;
  readonly session: TraceSession;
  readonly controller: { readonly current: TimelineController | null };
  readonly searchField: RefObject<HTMLInputElement | null>;
  readonly onHelp: () => void;
}

export function Toolbar(props: ToolbarProps): VNode {
  const { open, session, onHelp } = props;
  const [saved, setSaved] = useState("");
  const save = async (): Promise<void> => {
    const name = await saveTrace(open.file, open.state.data.title);
    setSaved(`Saved ${name}. Open ui.perfetto.dev and drop the file there.`);
  };
  return (
    <div class="trace-toolbar">
      <Search {...props} />
      <ArrowsToggle state={open.state} />
      <div class="actions push">
        <OpenFileButton session={session} label="Open…" />
        <button
          type="button"
          class="button"
          title="Saves the trace as a file for ui.perfetto.dev; nothing is sent"
          onClick={() => void save()}
        >
          Open in Perfetto
        </button>
        <button type="button" class="button" aria-label="Keys" onClick={onHelp}>
          Keys <kbd>?</kbd>
        </button>
      </div>
      <Legend state={open.state} />
      <p class="saved-note" role="status">
        {saved}
      </p>
    </div>
  );
}

function Search({ open, controller, searchField }: ToolbarProps): VNode {
  const { state } = open;
  const query = state.query.value;
  const problem = query !== null && "problem" in query ? query.problem : undefined;
  const count = state.hits.value.byTime.length;
  const index = state.hitIndex.value;
  const told =
    problem ??
    (query === null
      ? ""
      : count === 0
        ? "no hit"
        : index < 0
          ? `${formatCount(count)} ${count === 1 ? "hit" : "hits"}`
          : `${formatCount(index + 1)} of ${formatCount(count)}`);
  const onKeyDown = (event: KeyboardEvent): void => {
    if (event.key === "Enter") controller.current?.goToHit(event.shiftKey ? -1 : 1);
    else if (event.key === "Escape") {
      state.search("");
      searchField.current?.blur();
    } else return;
    event.preventDefault();
  };
  return (
    <search class="trace-search">
      <input
        ref={searchField}
        type="search"
        aria-label="Search names"
        placeholder="Search names, or /expression/"
        spellcheck={false}
        value={state.searchText.value}
        aria-invalid={problem !== undefined}
        onInput={({ currentTarget }) => state.search(currentTarget.value)}
        onKeyDown={onKeyDown}
      />
      <button
        type="button"
        class="quiet-button"
        aria-label="Previous hit"
        disabled={count === 0}
        onClick={() => controller.current?.goToHit(-1)}
      >
        ‹
      </button>
      <button
        type="button"
        class="quiet-button"
        aria-label="Next hit"
        disabled={count === 0}
        onClick={() => controller.current?.goToHit(1)}
      >
        ›
      </button>
      <span class="search-count" role="status" data-problem={problem !== undefined}>
        {told}
      </span>
    </search>
  );
}

function ArrowsToggle({ state }: { readonly state: TimelineState }): VNode | null {
  if (state.data.links.from.length === 0) return null;
  const { inView, drawn } = state.arrows.value;
  const on = state.allArrows.value;
  const told =
    on && drawn === 0 && inView > 0 ? `${formatCount(inView)} in view, zoom in to see them` : "";
  return (
    <label class="arrows-toggle">
      <input
        type="checkbox"
        checked={on}
        onChange={({ currentTarget }) => {
          state.allArrows.value = currentTarget.checked;
        }}
      />
      All arrows
      <span class="unit">{told}</span>
    </label>
  );
}

/** Kinds that occur; a click brings one forward. */
function Legend({ state }: { readonly state: TimelineState }): VNode {
  const emphasis = state.emphasis.value;
  // The calm tints mean nothing but "another name".
  const kinds = state.data.kinds.filter((kind) => !workKinds[kind]?.token.startsWith("work-plain"));
  return (
    <fieldset class="trace-legend" aria-label="Colours">
      {kinds.map((kind) => (
        <button
          key={kind}
          type="button"
          aria-pressed={emphasis === kind}
          onClick={() => {
            state.emphasis.value = emphasis === kind ? null : kind;
          }}
        >
          <span class={`swatch ${workKinds[kind]?.token}`} aria-hidden="true" />
          {workKinds[kind]?.label}
        </button>
      ))}
    </fieldset>
  );
}
