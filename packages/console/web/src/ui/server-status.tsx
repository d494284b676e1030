// How the app stands with the server, in two places: a line in the rail, always, and a banner over
// the page when something is not as it should be.

import type { VNode } from "preact";
import type { FeedState } from "../api/stats-feed.ts";
import type { AppServices } from "../app-services.ts";
import { openApiKeyDialog } from "./api-key.tsx";

const labels: Record<FeedState["phase"], string> = {
  connecting: "Connecting",
  live: "Live",
  loading: "Loading",
  unauthorized: "Locked",
  unsupported: "No statistics",
  away: "Away",
};

/** The state as a dot with a word, and the model's name. */
export function ServerStatus({ services }: { readonly services: AppServices }): VNode {
  const { phase } = services.feedState.value;
  const model = services.latest.value?.model;
  return (
    <div class="server-status" data-phase={phase}>
      <span class="lamp" aria-hidden="true" />
      <span class="server-state">{labels[phase]}</span>
      <span class="server-model" title={model?.id}>
        {model?.id ?? ""}
      </span>
    </div>
  );
}

/** What the user should know or do while the server is not live. */
export function FeedBanner({ services }: { readonly services: AppServices }): VNode {
  const state = services.feedState.value;
  return (
    <div role="status" class="banner-place">
      {bannerOf(state, services)}
    </div>
  );
}

function bannerOf(state: FeedState, services: AppServices): VNode | null {
  switch (state.phase) {
    case "connecting":
    case "live":
    case "unsupported":
      return null;
    case "loading":
      return <Banner kind="wait" title="The server is not ready" text={state.message} />;
    case "unauthorized":
      return (
        <Banner kind="alert" title="This server asks for an API key" text="">
          <button type="button" class="button" onClick={openApiKeyDialog}>
            Enter the key
          </button>
        </Banner>
      );
    case "away":
      return (
        <Banner
          kind="alert"
          title="The server is away"
          text={`${state.message} Trying again every few seconds.`}
        >
          <button type="button" class="button" onClick={() => services.reconnect()}>
            Try now
          </button>
        </Banner>
      );
  }
}

interface BannerProps {
  readonly kind: "wait" | "alert";
  readonly title: string;
  readonly text: string;
  readonly children?: VNode;
}

function Banner({ kind, title, text, children }: BannerProps): VNode {
  return (
    <div class="banner" data-kind={kind}>
      <p>
        <strong>{title}</strong> {text}
      </p>
      {children}
    </div>
  );
}
