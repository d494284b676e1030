// The trace page: opens a Chrome or Kineto trace in the browser, and shows when everything ran.

import type { VNode } from "preact";
import { useEffect } from "preact/hooks";
import type { PageProps } from "../../pages.ts";
import { useFileDrop } from "../../ui/file-drop.ts";
import { TraceSession } from "./session.ts";
import { EmptyView, LoadingView } from "./view/opening.tsx";
import { TraceView } from "./view/trace-view.tsx";
import "./trace.css";
import "./timeline.css";
import "./panels.css";

export default function TracePage({ services, rest }: PageProps): VNode {
  const session = services.keep("trace", TraceSession);
  const phase = session.phase.value;
  const dropping = useFileDrop((file) => session.open({ kind: "file", file }));
  useEffect(() => {
    const url = new URLSearchParams(rest.replace(/^\?/, "")).get("url");
    if (url !== null && url !== "") session.openUrl(url);
  }, [rest, session]);
  return (
    <div class="trace-page" data-phase={phase.kind} data-dropping={dropping}>
      <h1 class="visually-hidden">Trace</h1>
      {phase.kind === "open" ? (
        <TraceView key={phase.state} open={phase} session={session} />
      ) : phase.kind === "loading" ? (
        <LoadingView title={phase.title} state={phase.state} onCancel={() => session.close()} />
      ) : (
        <EmptyView session={session} failure={phase.kind === "failed" ? phase : undefined} />
      )}
    </div>
  );
}
