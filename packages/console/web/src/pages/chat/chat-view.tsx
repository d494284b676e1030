// Chat mode: the turns, and the field for the next message.

import type { VNode } from "preact";
import { useRef, useState } from "preact/hooks";
import { ErrorNote } from "../../ui/error-note.tsx";
import { isPlainEnter, useEscape, useStickToEnd } from "../../ui/input.ts";
import type { ChatState } from "./chat-state.ts";
import type { Turn } from "./conversation.ts";
import type { Generation } from "./generation.ts";
import { splitReasoning } from "./markdown.ts";
import { CopyButton, Markdown } from "./markdown-view.tsx";
import { Readout } from "./readout.tsx";

/** The conversation with its composer. */
export function ChatView({ state }: { readonly state: ChatState }): VNode {
  const { conversation } = state;
  const turns = conversation.turns.value;
  const running = conversation.running.value;
  const log = useRef<HTMLDivElement>(null);
  const last = turns.at(-1);
  const answer = last?.role === "assistant" ? last.generation : null;
  const growth = `${last?.id} ${answer?.text.value.length} ${answer?.state.value.phase}`;
  useStickToEnd(log, growth, true);
  useEscape(running !== null, () => conversation.stop());
  return (
    <section class="chat" aria-label="Chat">
      <div class="turns" ref={log}>
        {turns.length === 0 && (
          <div class="empty">
            <h2>Nothing said yet</h2>
            <p>
              Write below. The whole conversation is sent with every message; what it shares with
              the one before comes from the prefix cache.
            </p>
          </div>
        )}
        {turns.map((turn, index) => (
          <TurnView key={turn.id} turn={turn} last={index === turns.length - 1} state={state} />
        ))}
      </div>
      <Composer state={state} running={running} />
    </section>
  );
}

interface TurnProps {
  readonly turn: Turn;
  readonly last: boolean;
  readonly state: ChatState;
}

function TurnView({ turn, last, state }: TurnProps): VNode {
  if (turn.role === "user") return <UserTurn id={turn.id} text={turn.text} state={state} />;
  return <AssistantTurn generation={turn.generation} last={last} state={state} />;
}

interface UserTurnProps {
  readonly id: number;
  readonly text: string;
  readonly state: ChatState;
}

function UserTurn({ id, text, state }: UserTurnProps): VNode {
  const [edited, setEdited] = useState<string | null>(null);
  if (edited === null) {
    return (
      <article class="turn user" aria-label="You">
        <p class="turn-who">You</p>
        <p class="turn-text">{text}</p>
        <div class="turn-tools">
          <button type="button" class="quiet-button" onClick={() => setEdited(text)}>
            Edit
          </button>
          <CopyButton text={text} />
        </div>
      </article>
    );
  }
  const send = (): void => {
    if (edited.trim() !== "") state.conversation.edit(id, edited, state.answer);
    setEdited(null);
  };
  return (
    <article class="turn user" aria-label="You, editing">
      <p class="turn-who">You</p>
      <textarea
        class="turn-edit"
        aria-label="Edit the message"
        value={edited}
        rows={Math.min(edited.split("\n").length + 1, 12)}
        onInput={(event) => setEdited(event.currentTarget.value)}
        onKeyDown={(event) => {
          if (event.key === "Escape") setEdited(null);
          else if (isPlainEnter(event)) send();
          else return;
          // Also keeps Escape from stopping an answer that is being written.
          event.preventDefault();
        }}
      />
      <div class="actions">
        <button type="button" class="button primary" onClick={send}>
          Send again
        </button>
        <button type="button" class="button" onClick={() => setEdited(null)}>
          Cancel
        </button>
      </div>
    </article>
  );
}

interface AssistantTurnProps {
  readonly generation: Generation;
  readonly last: boolean;
  readonly state: ChatState;
}

function AssistantTurn({ generation, last, state }: AssistantTurnProps): VNode {
  const text = generation.text.value;
  const status = generation.state.value;
  const reply = splitReasoning(text);
  const again = (): void => state.conversation.regenerate(state.answer);
  return (
    <article class="turn assistant" aria-label="Model" aria-busy={generation.running}>
      <p class="turn-who">Model</p>
      {status.phase === "waiting" && (
        <p class="waiting">
          <span class="caret" /> Reading the prompt
        </p>
      )}
      {reply.reasoning !== null && (
        <details class="reasoning" open={!reply.decided}>
          <summary>Reasoning</summary>
          <Markdown text={reply.reasoning} />
        </details>
      )}
      {reply.answer !== "" && <Markdown text={reply.answer} />}
      {status.phase === "failed" && <ErrorNote error={status.error} onRetry={again} />}
      {status.phase !== "waiting" && generation.measured && <Readout generation={generation} />}
      {!generation.running && (
        <div class="turn-tools">
          {last && (
            <button type="button" class="quiet-button" onClick={again}>
              Regenerate
            </button>
          )}
          <CopyButton text={text} />
        </div>
      )}
    </article>
  );
}

interface ComposerProps {
  readonly state: ChatState;
  readonly running: Generation | null;
}

function Composer({ state, running }: ComposerProps): VNode {
  const { conversation, draft } = state;
  const text = draft.value;
  const canSend = running === null && text.trim() !== "" && "fields" in state.checked.value;
  const send = (): void => {
    if (!canSend) return;
    draft.value = "";
    conversation.send(text, state.answer);
  };
  return (
    <div class="dock">
      <label class="composer">
        <span class="visually-hidden">Message</span>
        <textarea
          placeholder="Message"
          value={text}
          rows={Math.min(Math.max(text.split("\n").length, 2), 10)}
          onInput={(event) => {
            draft.value = event.currentTarget.value;
          }}
          onKeyDown={(event) => {
            if (!isPlainEnter(event)) return;
            event.preventDefault();
            send();
          }}
        />
      </label>
      <div class="actions">
        {running === null ? (
          <button type="button" class="button primary" disabled={!canSend} onClick={send}>
            Send <kbd>↵</kbd>
          </button>
        ) : (
          <button type="button" class="button stop" onClick={() => conversation.stop()}>
            Stop <kbd>Esc</kbd>
          </button>
        )}
        <button
          type="button"
          class="button push"
          disabled={conversation.turns.value.length === 0}
          onClick={() => conversation.clear()}
        >
          Clear
        </button>
      </div>
    </div>
  );
}
