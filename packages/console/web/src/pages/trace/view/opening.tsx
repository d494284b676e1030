// Before a trace is shown: where to get one, how far reading it is, and why it could not be read.

import type { VNode } from "preact";
import { useRef } from "preact/hooks";
import { formatBytes } from "../../../ui/format.ts";
import type { TracePhase, TraceSession } from "../session.ts";
import type { LoadState } from "../worker/messages.ts";

/** A button that lets a file be chosen. */
export function OpenFileButton({
  session,
  label,
  primary = false,
}: {
  readonly session: TraceSession;
  readonly label: string;
  readonly primary?: boolean;
}): VNode {
  const input = useRef<HTMLInputElement>(null);
  return (
    <>
      <button
        type="button"
        class={primary ? "button primary" : "button"}
        onClick={() => input.current?.click()}
      >
        {label}
      </button>
      <input
        ref={input}
        type="file"
        hidden
        accept=".json,.gz,application/json,application/gzip"
        onChange={({ currentTarget }) => {
          const file = currentTarget.files?.[0];
          // Chosen again, the same file must be an event again.
          currentTarget.value = "";
          if (file !== undefined) session.open({ kind: "file", file });
        }}
      />
    </>
  );
}

/** The way in. */
export function EmptyView({
  session,
  failure,
}: {
  readonly session: TraceSession;
  readonly failure: Extract<TracePhase, { kind: "failed" }> | undefined;
}): VNode {
  const mendable = failure?.mendable;
  return (
    <div class="trace-empty">
      {failure !== undefined && (
        <div class="error-note" role="alert">
          <p class="error-title">{failure.title} cannot be opened</p>
          <p>{failure.message}</p>
          {mendable !== undefined && (
            <div class="actions">
              <button
                type="button"
                class="button"
                onClick={() => session.open(mendable, { tolerant: true })}
              >
                Open what can be read
              </button>
            </div>
          )}
        </div>
      )}
      <section class="drop-zone" aria-label="Open a trace">
        <h2>Drop a trace here</h2>
        <p>
          A Chrome trace or a PyTorch profile, <code>.json</code> or <code>.json.gz</code>. It is
          read in this browser and sent nowhere.
        </p>
        <div class="actions">
          <OpenFileButton session={session} label="Choose a file" primary />
          <button type="button" class="button" onClick={() => session.open({ kind: "example" })}>
            Open the example
          </button>
        </div>
      </section>
      <dl class="trace-sources">
        <div>
          <dt>From the command line</dt>
          <dd>
            <code>open-infra trace view FILE</code>
          </dd>
        </div>
        <div>
          <dt>From the engine</dt>
          <dd>
            <code>open-infra serve --trace FILE</code>
          </dd>
        </div>
        <div>
          <dt>From PyTorch</dt>
          <dd>
            <code>prof.export_chrome_trace(FILE)</code>
          </dd>
        </div>
      </dl>
    </div>
  );
}

/** How far reading is. */
export function LoadingView({
  title,
  state,
  onCancel,
}: {
  readonly title: string;
  readonly state: LoadState;
  readonly onCancel: () => void;
}): VNode {
  const { phase, bytes, totalBytes } = state;
  const known = phase === "reading" && totalBytes > 0;
  const detail =
    phase === "arranging"
      ? `${formatBytes(bytes)} read, arranging`
      : totalBytes > 0
        ? `${formatBytes(bytes)} of ${formatBytes(totalBytes)}`
        : bytes > 0
          ? `${formatBytes(bytes)} read`
          : "starting";
  return (
    <div class="trace-loading" role="status">
      <p>Reading {title}</p>
      <progress aria-label={`Reading ${title}`} {...(known && { value: bytes, max: totalBytes })} />
      <p class="load-detail">{detail}</p>
      <button type="button" class="button" onClick={onCancel}>
        Cancel
      </button>
    </div>
  );
}
