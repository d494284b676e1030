// The settings beside the text: model, system prompt, sampling.

import type { VNode } from "preact";
import type { ChatState } from "./chat-state.ts";
import { type FieldRule, fieldRules, placeholderOf } from "./sampling.ts";

/** The form; `id` is what the button that opens it controls. */
export function SettingsView({
  state,
  id,
}: {
  readonly state: ChatState;
  readonly id: string;
}): VNode {
  const models = state.models.value;
  const stopProblem = problemOf(state, "stop");
  return (
    <aside class="settings" id={id} aria-label="Settings">
      {models.length > 1 && (
        <label class="field">
          <span>Model</span>
          <select
            value={state.model}
            onChange={(event) => state.chooseModel(event.currentTarget.value)}
          >
            {models.map((model) => (
              <option key={model}>{model}</option>
            ))}
          </select>
        </label>
      )}
      {state.mode.value === "chat" && (
        <label class="field">
          <span>System prompt</span>
          <textarea
            rows={4}
            value={state.systemPrompt.value}
            placeholder="None"
            onInput={(event) => {
              state.systemPrompt.value = event.currentTarget.value;
            }}
          />
        </label>
      )}
      <fieldset>
        <legend>Sampling</legend>
        <div class="field-grid">
          {fieldRules.map((rule) => (
            <NumberInput key={rule.name} rule={rule} state={state} />
          ))}
        </div>
        <label class="field">
          <span>Stop strings</span>
          <textarea
            rows={2}
            value={state.sampling.value.stop}
            placeholder="One a line, \n for a line break"
            spellcheck={false}
            aria-invalid={stopProblem !== undefined}
            onInput={(event) => state.setSampling("stop", event.currentTarget.value)}
          />
          {stopProblem !== undefined && <span class="field-problem">{stopProblem}</span>}
        </label>
      </fieldset>
      <div class="settings-foot">
        <p>Empty fields leave the choice to the server.</p>
        <button type="button" class="quiet-button" onClick={() => state.resetSampling()}>
          Empty all
        </button>
      </div>
    </aside>
  );
}

function problemOf(state: ChatState, name: FieldRule["name"] | "stop"): string | undefined {
  const checked = state.checked.value;
  return "errors" in checked ? checked.errors[name] : undefined;
}

function NumberInput({
  rule,
  state,
}: {
  readonly rule: FieldRule;
  readonly state: ChatState;
}): VNode {
  const problem = problemOf(state, rule.name);
  return (
    <label class="field" title={rule.hint}>
      <span>{rule.label}</span>
      <input
        // Not type=number: that hides what cannot be parsed, and the user should see the problem.
        type="text"
        inputMode={rule.integer ? "numeric" : "decimal"}
        autocomplete="off"
        name={rule.wireName}
        value={state.sampling.value[rule.name]}
        placeholder={placeholderOf(rule.name, state.modelDefaults)}
        aria-invalid={problem !== undefined}
        onInput={(event) => state.setSampling(rule.name, event.currentTarget.value)}
      />
      {problem !== undefined && <span class="field-problem">{problem}</span>}
    </label>
  );
}
