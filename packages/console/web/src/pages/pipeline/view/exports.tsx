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

export interface ExportsProps {
  readonly result: PipelineResult;
  readonly session: PipelineSession;
  readonly services: AppServices;
}

/** Each export as a button: what it says, what it does. */
function exportsOf(
  { result, services }: ExportsProps,
  request: PipelineRequest,
): readonly (readonly [label: string, work: () => void | Promise<void>])[] {
  const name = nameOf(result);
  return [
    [
      "Save as SVG",
      () => {
        const text = toSvg(result.schedule, fullRun(request, result));
        saveText(`${name}.svg`, text, "image/svg+xml");
      },
    ],
    ["Save as Chrome trace", () => saveText(`${name}.json`, traceText(request, result))],
    [
      "Open in the trace page",
      async () => {
        const { TraceSession } = await import("../../trace/session.ts");
        const text = traceText(request, result);
        const file = new File([text], `${name}.json`, { type: "application/json" });
        services.keep("trace", TraceSession).open({ kind: "file", file });
        location.hash = "#/trace";
      },
    ],
  ];
}

export function Exports(props: ExportsProps): VNode {
  const { result, session } = props;
  const { request } = session;
  const [problem, setProblem] = useState("");
  const large = result.numOperations > operationsMax;
  const attempt = async (work: () => void | Promise<void>): Promise<void> => {
    try {
      await work();
      setProblem("");
    } catch (error) {
      setProblem(failureOf(error).message);
    }
  };
  const times = timesFile(request, result.stagesPerRank);
  return (
    <section class="bench-card" aria-label="Take it along">
      <header>
        <h2>On the command line</h2>
        <div class="actions">
          {exportsOf(props, request).map(([label, work]) => (
            <button
              key={label}
              type="button"
              class="button"
              disabled={large}
              onClick={() => void attempt(work)}
            >
              {label}
            </button>
          ))}
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
