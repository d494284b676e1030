// The field for the API key, for servers started with --api-key. The key stays in this tab's
// session; it is sent to this server alone and never written into an address.

import type { TargetedSubmitEvent, VNode } from "preact";
import { useRef, useState } from "preact/hooks";
import type { AppServices } from "../app-services.ts";

const DIALOG_ID = "api-key-dialog";

/** Opens the dialog from anywhere; pages offer it beside an error that a key would cure. */
export function openApiKeyDialog(): void {
  const dialog = document.getElementById(DIALOG_ID);
  if (dialog instanceof HTMLDialogElement && !dialog.open) dialog.showModal();
}

/** The button in the rail, with its dialog. */
export function ApiKeyButton({ services }: { readonly services: AppServices }): VNode {
  const dialog = useRef<HTMLDialogElement>(null);
  const [typed, setTyped] = useState(services.apiKey.peek());
  const isSet = services.apiKey.value !== "";
  const submit = (event: TargetedSubmitEvent<HTMLFormElement>): void => {
    event.preventDefault();
    services.setApiKey(typed.trim());
    dialog.current?.close();
  };
  return (
    <>
      <button type="button" class="quiet-button" onClick={openApiKeyDialog}>
        {isSet ? "API key set" : "API key"}
      </button>
      <dialog
        ref={dialog}
        id={DIALOG_ID}
        aria-labelledby="api-key-title"
        onClose={() => setTyped(services.apiKey.peek())}
      >
        <form onSubmit={submit}>
          <h2 id="api-key-title">API key</h2>
          <p>Needed only by a server that was started with a key. Kept until this tab closes.</p>
          <label class="field">
            <span>Key</span>
            <input
              type="password"
              autocomplete="off"
              spellcheck={false}
              value={typed}
              onInput={(event) => setTyped(event.currentTarget.value)}
            />
          </label>
          <div class="actions">
            <button type="submit" class="button primary">
              Use this key
            </button>
            <button type="button" class="button" onClick={() => dialog.current?.close()}>
              Cancel
            </button>
          </div>
        </form>
      </dialog>
    </>
  );
}
