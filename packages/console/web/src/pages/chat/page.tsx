// The chat page: a toggle between continuing text and conversing, the settings, and the mode's
// view.

import { useComputed } from "@preact/signals";
import type { VNode } from "preact";
import { useState } from "preact/hooks";
import type { PageProps } from "../../pages.ts";
import { ChatState, type Mode } from "./chat-state.ts";
import { ChatView } from "./chat-view.tsx";
import { CompletionView } from "./completion-view.tsx";
import { stateText } from "./readout.tsx";
import { SettingsView } from "./settings-view.tsx";
import "./chat.css";

const modes: readonly { readonly mode: Mode; readonly title: string; readonly hint: string }[] = [
  { mode: "completion", title: "Completion", hint: "The model continues your text" },
  { mode: "chat", title: "Chat", hint: "The model answers through its chat template" },
];

const SETTINGS_ID = "chat-settings";

export default function ChatPage({ services }: PageProps): VNode {
  const state = services.keep("chat", ChatState);
  const mode = state.mode.value;
  // Beside the text where there is room; on a small screen only when asked for.
  const [settingsOpen, setSettingsOpen] = useState(() => matchMedia("(min-width: 64rem)").matches);
  return (
    <div class="chat-page" data-settings={settingsOpen}>
      <div class="page-head">
        <h1 class="visually-hidden">Chat</h1>
        <fieldset class="toggle">
          <legend class="visually-hidden">Mode</legend>
          {modes.map((entry) => (
            <label key={entry.mode} title={entry.hint}>
              <input
                type="radio"
                name="mode"
                checked={entry.mode === mode}
                onChange={() => state.chooseMode(entry.mode)}
              />
              <span>{entry.title}</span>
            </label>
          ))}
        </fieldset>
        <p class="page-hint">{modes.find((entry) => entry.mode === mode)?.hint}</p>
        <button
          type="button"
          class="button"
          aria-expanded={settingsOpen}
          aria-controls={SETTINGS_ID}
          onClick={() => setSettingsOpen(!settingsOpen)}
        >
          Settings
        </button>
      </div>
      {settingsOpen && <SettingsView state={state} id={SETTINGS_ID} />}
      {mode === "chat" ? <ChatView state={state} /> : <CompletionView state={state} />}
      <Announcer state={state} />
    </div>
  );
}

/** Tells a screen reader when an answer begins and ends, not every word of it. */
function Announcer({ state }: { readonly state: ChatState }): VNode {
  const words = useComputed(() => {
    const last = state.conversation.turns.value.at(-1);
    const generation =
      state.mode.value === "completion"
        ? state.doc.generation.value
        : last?.role === "assistant"
          ? last.generation
          : null;
    return generation === null ? "" : stateText(generation.state.value);
  });
  return (
    <p class="visually-hidden" role="status">
      {words}
    </p>
  );
}
