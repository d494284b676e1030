// Completion mode: one sheet of text that the user and the model write in turns. The text is drawn
// twice, exactly on top of each other: by blocks that can mark the model's part, and by a text
// area with invisible letters that edits it.

import type { VNode } from "preact";
import { useCallback, useLayoutEffect, useMemo, useRef } from "preact/hooks";
import { ErrorNote } from "../../ui/error-note.tsx";
import { isMainEnter, useEscape, useStickToEnd } from "../../ui/input.ts";
import type { ChatState } from "./chat-state.ts";
import { type DocBlock, docBlocks } from "./completion-doc.ts";
import { Readout } from "./readout.tsx";

/** The sheet, its buttons and its measurements. */
export function CompletionView({ state }: { readonly state: ChatState }): VNode {
  const { doc } = state;
  const generation = doc.generation.value;
  const running = generation?.running ?? false;
  const failure = generation?.state.value;
  const range = doc.generated.value;
  const nothingToTake = running || range === null || range.from === range.to;
  const canGenerate = !running && doc.text.value !== "" && "fields" in state.checked.value;
  const generate = (): void => {
    if (canGenerate) doc.generate(state.complete);
  };
  const onKeyDown = (event: KeyboardEvent): void => {
    if (!isMainEnter(event)) return;
    event.preventDefault();
    generate();
  };
  useEscape(running, () => generation?.stop());
  return (
    <section class="completion" aria-label="Completion" onKeyDown={onKeyDown}>
      <Sheet state={state} running={running} />
      {failure?.phase === "failed" && (
        <ErrorNote error={failure.error} onRetry={() => doc.regenerate(state.complete)} />
      )}
      <div class="dock">
        <div class="actions">
          {running ? (
            <button type="button" class="button stop" onClick={() => generation?.stop()}>
              Stop <kbd>Esc</kbd>
            </button>
          ) : (
            <button type="button" class="button primary" disabled={!canGenerate} onClick={generate}>
              Continue <kbd>Ctrl ↵</kbd>
            </button>
          )}
          <button
            type="button"
            class="button"
            disabled={nothingToTake}
            onClick={() => doc.regenerate(state.complete)}
          >
            Regenerate
          </button>
          <button
            type="button"
            class="button"
            disabled={nothingToTake}
            onClick={() => doc.takeBack()}
          >
            Take back
          </button>
          <button type="button" class="button push" onClick={() => doc.clear()}>
            Clear
          </button>
        </div>
        {generation?.measured && <Readout generation={generation} />}
      </div>
    </section>
  );
}

function Sheet({
  state,
  running,
}: {
  readonly state: ChatState;
  readonly running: boolean;
}): VNode {
  const { doc } = state;
  const text = doc.text.value;
  const blocks = docBlocks(text, doc.generated.value);
  const sheet = useRef<HTMLDivElement>(null);
  const area = useRef<HTMLTextAreaElement>(null);
  useStickToEnd(sheet, text, running);
  // While the model writes, only the blocks grow: giving the text area the whole text every frame
  // would lay all of it out again. It is read-only then, lets clicks through to the blocks, and is
  // filled once at the end.
  useLayoutEffect(() => {
    const editor = area.current;
    if (running || editor === null || editor.value === text) return;
    editor.value = text;
    editor.setSelectionRange(text.length, text.length);
  }, [running, text]);
  const onInput = useCallback(() => {
    if (area.current !== null) doc.edit(area.current.value);
  }, [doc]);
  return (
    <div class="sheet" ref={sheet} data-running={running}>
      <div class="sheet-text">
        <div class="sheet-blocks" aria-hidden={!running}>
          {blocks.map((block, index) => (
            <BlockView key={block.at} block={block} last={running && index === blocks.length - 1} />
          ))}
        </div>
        <textarea
          ref={area}
          aria-label="Text to continue"
          readOnly={running}
          spellcheck={false}
          autocapitalize="off"
          autocomplete="off"
          onInput={onInput}
        />
      </div>
      {text === "" && (
        <p class="sheet-hint">Write the beginning of something; the model goes on from there.</p>
      )}
    </div>
  );
}

function BlockView({ block, last }: { readonly block: DocBlock; readonly last: boolean }): VNode {
  const { before, generated, after } = block;
  // The same node for the same text, so that finished blocks are not compared again.
  return useMemo(
    () => (
      <div class="sheet-block">
        {before}
        {generated !== "" && <span class="generated">{generated}</span>}
        {after}
        {last && <span class="caret" />}
        {"\n"}
      </div>
    ),
    [before, generated, after, last],
  );
}
