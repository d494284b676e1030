// The pipeline page: a schedule and times in, when every rank does what, what it holds, and how
// that compares. Everything is computed in this browser; no server is asked.

import type { VNode } from "preact";
import { useEffect } from "preact/hooks";
import type { PageProps } from "../../pages.ts";
import { useAddress } from "../../ui/address.ts";
import { PipelineSession } from "./session.ts";
import { Exports } from "./view/exports.tsx";
import { PipelineFigures, Validation } from "./view/figures.tsx";
import { PipelineForm } from "./view/form.tsx";
import { Comparison, IdleTable, Planner } from "./view/tables.tsx";
import { PipelineTimeline } from "./view/timeline.tsx";
import "./pipeline.css";

export default function PipelinePage({ services }: PageProps): VNode {
  const session = services.keep("pipeline", PipelineSession);
  useAddress("pipeline", session);
  // An address that says nothing must still give a first result.
  useEffect(() => session.compute(), [session]);
  const { result, problem, busy } = session.simulated.value;
  return (
    <div class="bench-page pipeline-page">
      <h1 class="visually-hidden">Pipeline</h1>
      <PipelineForm session={session} />
      <div class="bench-results" data-stale={problem !== null} data-busy={busy} aria-busy={busy}>
        {problem !== null && (
          <div class="error-note" role="alert">
            <p class="error-title">No pipeline for these inputs</p>
            <p>{problem.message}</p>
          </div>
        )}
        {result === null && busy && (
          <p class="bench-note" role="status">
            Simulating…
          </p>
        )}
        {result !== null && (
          <>
            <PipelineFigures result={result} />
            <Validation result={result} />
            <PipelineTimeline result={result} session={session} />
            <IdleTable result={result} />
          </>
        )}
        <Comparison session={session} />
        <Planner session={session} />
        {result !== null && <Exports result={result} session={session} services={services} />}
      </div>
    </div>
  );
}
