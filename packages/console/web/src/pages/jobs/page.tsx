// The jobs page: a smallpond job while it runs and after: how far it is, its plan, what ran where
// and when, what is slow, what failed.

import type { VNode } from "preact";
import { useEffect } from "preact/hooks";
import type { PageProps } from "../../pages.ts";
import { JobsSession } from "./session.ts";
import { JobFigures, JobList } from "./view/figures.tsx";
import { PlanGraph } from "./view/plan.tsx";
import { ExecutorTable, Failures, StepTable, Stragglers } from "./view/tables.tsx";
import { TaskTimeline } from "./view/timeline.tsx";
import "../../ui/workbench.css";
import "./jobs.css";

export default function JobsPage({ services, rest }: PageProps): VNode {
  const session = services.keep("jobs", JobsSession);
  useEffect(() => session.open(rest), [rest, session]);
  useEffect(() => session.watch(), [session]);
  const shown = session.shown.value;
  const problem = session.problem.value;
  if (session.at.value === "") return <NoJobs />;
  return (
    <div class="jobs-page">
      <h1 class="visually-hidden">Jobs</h1>
      <JobList session={session} />
      <div class="bench-results">
        {problem !== null && (
          <div class="error-note" role="alert">
            <p class="error-title">The job cannot be read now</p>
            <p>{problem}. What is shown is the last that was known.</p>
          </div>
        )}
        {shown === null && problem === null && (
          <p class="bench-note" role="status">
            Reading…
          </p>
        )}
        {shown !== null && (
          <>
            <JobFigures shown={shown} />
            <PlanGraph shown={shown} />
            <TaskTimeline key={shown.job} shown={shown} />
            <Stragglers shown={shown} />
            <Failures shown={shown} />
            <StepTable shown={shown} />
            <ExecutorTable shown={shown} />
          </>
        )}
      </div>
    </div>
  );
}

/** What to do where the server has no jobs, as the one of a model has none. */
function NoJobs(): VNode {
  return (
    <div class="jobs-empty">
      <h1>Jobs</h1>
      <p>
        Data jobs of smallpond are shown here, running or over. Start the page beside a job, or for
        all jobs of a folder:
      </p>
      <pre>
        <code>open-infra smallpond run --console job.ts</code>
        <code>open-infra smallpond console --open</code>
      </pre>
    </div>
  );
}
