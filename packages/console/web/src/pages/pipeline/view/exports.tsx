// Taking a pipeline along: picture, trace, command.

import { type SimulationResult, simulate, toChromeTrace, toSvg } from "@open-infra/dualpipe";
import type { VNode } from "preact";
import { useState } from "preact/hooks";
import type { AppServices } from "../../../app-services.ts";
import { saveText } from "../../../ui/save-text.ts";
import { CommandLine } from "../../../ui/workbench.tsx";
import { failureOf } from "../../../ui/worker-answer.ts";
import type { PipelineResult } from "../compute.ts";
import { type PipelineRequest, simulateCommand, stageTimes, timesFile } from "../inputs.ts";
import type { PipelineSession } from "../session.ts";

/** More operations than this would hold the page up while they are written. */
const operationsMax = 500_000;

/** Simulated anew: the page keeps the critical path as marks only. */
function fullRun(
  request: PipelineRequest,
  { schedule, stagesPerRank }: PipelineResult,
): SimulationResult {
  return simulate(schedule, stageTimes(request, stagesPerRank), {
    communication: { latency: request.latency },
  });
}

function nameOf({ schedule }: PipelineResult): string {
  return `${schedule.name}-${schedule.numRanks}-ranks-${schedule.numMicroBatches}-micro-batches`;
}

function traceText(request: PipelineRequest, result: PipelineResult): string {
  return JSON.stringify(toChromeTrace(result.schedule, fullRun(request, result)));
}

export function Exports({
  result,
  session,
  services,
}: {
  readonly result: PipelineResult;
  readonly session: PipelineSession;
  readonly services: AppServices;
}): VNode {
  const { request } = session;
  const [problem, setProblem] = useState("");
  const name = nameOf(result);
  const large = result.numOperations > operationsMax;
  const attempt = (work: () => void | Promise<void>) => async (): Promise<void> => {
    try {
      await work();
      setProblem("");
    } catch (error) {
      setProblem(failureOf(error).message);
    }
  };
  const inTracePage = attempt(async () => {
    const { TraceSession } = await import("../../trace/session.ts");
    const file = new File([traceText(request, result)], `${name}.json`, {
      type: "application/json",
    });
    services.keep("trace", TraceSession).open({ kind: "file", file });
    location.hash = "#/trace";
  });
  const svg = attempt(() => {
    const text = toSvg(result.schedule, fullRun(request, result));
    saveText(`${name}.svg`, text, "image/svg+xml");
  });
  const times = timesFile(request, result.stagesPerRank);
  return (
    <section class="bench-card" aria-label="Take it along">
      <header>
        <h2>On the command line</h2>
        <div class="actions">
          <button type="button" class="button" disabled={large} onClick={() => void svg()}>
            Save as SVG
          </button>
          <button
            type="button"
            class="button"
            disabled={large}
            onClick={() =>
              void attempt(() => saveText(`${name}.json`, traceText(request, result)))()
            }
          >
            Save as Chrome trace
          </button>
          <button type="button" class="button" disabled={large} onClick={() => void inTracePage()}>
            Open in the trace page
          </button>
          {times !== undefined && (
            <button type="button" class="button" onClick={() => saveText("times.json", times)}>
              Save times.json
            </button>
          )}
        </div>
      </header>
      {large && (
        <p class="bench-note">
          Too many operations to write here: the command with --svg and --trace does it.
        </p>
      )}
      {problem !== "" && (
        <p class="field-problem" role="alert">
          {problem}
        </p>
      )}
      <CommandLine command={simulateCommand(request, result.stagesPerRank)} />
    </section>
  );
}
