// An API error, shown where the answer would have stood, with the way on.

import type { ComponentChildren, VNode } from "preact";
import { type ApiError, errorTitle } from "../api/errors.ts";
import { openApiKeyDialog } from "./api-key.tsx";

export interface ErrorNoteProps {
  readonly error: ApiError;
  readonly onRetry: () => void;
  readonly children?: ComponentChildren;
}

/** Headline, the server's own words, and a retry. */
export function ErrorNote({ error, onRetry }: ErrorNoteProps): VNode {
  const wait = error.retryAfterSeconds;
  return (
    <div class="error-note" role="alert">
      <p class="error-title">
        {errorTitle(error)}
        {error.status !== undefined && <span class="error-status">{error.status}</span>}
      </p>
      <p>
        {error.message}
        {error.param !== undefined && (
          <>
            {" "}
            Field: <code>{error.param}</code>.
          </>
        )}
        {wait !== undefined && ` The server suggests another try in ${wait} s.`}
      </p>
      <div class="actions">
        <button type="button" class="button" onClick={onRetry}>
          Retry
        </button>
        {error.kind === "unauthorized" && (
          <button type="button" class="button" onClick={openApiKeyDialog}>
            Enter the key
          </button>
        )}
      </div>
    </div>
  );
}
