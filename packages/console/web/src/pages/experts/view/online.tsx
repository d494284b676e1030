// The online part: a made-up load through the controller, beside two baselines.

import { policyNames, scenarios } from "@open-infra/eplb";
import type { VNode } from "preact";
import { choiceOf } from "../../../ui/form-values.ts";
import { formatCount, formatPercent } from "../../../ui/format.ts";
import { Choice, CommandLine } from "../../../ui/workbench.tsx";
import type { OnlineResult } from "../compute.ts";
import { choices, policyOf, scenarioTexts, simulateCommand } from "../inputs.ts";
import type { ExpertsSession } from "../session.ts";
import { BoundField } from "./form.tsx";
import { arms, OnlineChart } from "./online-chart.tsx";

export function Online({ session }: { readonly session: ExpertsSession }): VNode {
  const { result, problem, busy } = session.replayed.value;
  return (
    <section class="bench-card own-state online" aria-label="Online" aria-busy={busy}>
      <header>
        <h2>Online: the controller while the load changes</h2>
        <ul class="bar-legend" aria-label="Colours of lines">
          {arms.map(([arm, title]) => (
            <li key={arm} data-color={arm}>
              {title}
            </li>
          ))}
        </ul>
      </header>
      <OnlineForm session={session} />
      {problem !== null && problem.field === undefined && (
        <p class="field-problem" role="alert">
          {problem.message}
        </p>
      )}
      {problem !== null && problem.field !== undefined && result !== null && (
        <p class="bench-note">Shown is the last replay that could run: {problem.message}</p>
      )}
      {result === null ? (
        <p class="bench-note">{busy ? "Replaying…" : (problem?.message ?? "")}</p>
      ) : (
        <div class="online-results" data-stale={problem !== null}>
          <OnlineChart result={result} />
          <TotalsTable result={result} />
        </div>
      )}
      <CommandLine command={simulateCommand(session.online)} />
    </section>
  );
}

function OnlineForm({ session }: { readonly session: ExpertsSession }): VNode {
  const values = session.values.value;
  const scenario = choiceOf(values.scenario, choices.scenario);
  return (
    <div class="online-form">
      <Choice
        label="How the load changes"
        value={scenario}
        options={scenarios.map((name) => [name, `${name}: ${scenarioTexts[name]}`] as const)}
        onChange={(value) => session.set({ scenario: value })}
      />
      <Choice
        label="Controller's policy"
        value={policyOf(values.onlinePolicy)}
        options={policyNames.map((name) => [name, name] as const)}
        onChange={(value) => session.set({ onlinePolicy: value })}
      />
      <BoundField session={session} name="onlineLayers" label="Layers replayed" />
      <BoundField session={session} name="steps" label="Steps" />
      <BoundField session={session} name="interval" label="Interval" />
      <BoundField
        session={session}
        name="stepBudget"
        label="Slots a step may move"
        placeholder="no limit"
      />
    </div>
  );
}

function plansText({ metrics, peakStepBytes }: OnlineResult): string {
  const { plansStarted, plansCompleted, declined } = metrics;
  return (
    `${formatCount(plansStarted)} plans started, ${formatCount(plansCompleted)} completed, ` +
    `${formatCount(declined)} declined; ` +
    `at most ${formatCount(peakStepBytes)} slots copied in a step.`
  );
}

function TotalsTable({ result }: { readonly result: OnlineResult }): VNode {
  return (
    <div class="bench-table-scroll">
      <table class="bench-table">
        <thead>
          <tr>
            <th scope="col">Over {formatCount(result.numSteps)} steps</th>
            <th scope="col">Max ÷ mean</th>
            <th scope="col">Balancedness</th>
            <th scope="col">Moved slots</th>
          </tr>
        </thead>
        <tbody>
          {arms.map(([arm, title]) => (
            <tr key={arm}>
              <th scope="row">{title}</th>
              <td data-number>{result[arm].maxOverMean.toFixed(3)}</td>
              <td data-number>{formatPercent(result[arm].balancedness)}</td>
              <td data-number>{formatCount(result[arm].movedSlots)}</td>
            </tr>
          ))}
        </tbody>
      </table>
      <p class="bench-note">{plansText(result)}</p>
      <details>
        <summary>Steps as a table</summary>
        <table class="bench-table">
          <thead>
            <tr>
              <th scope="col">From step</th>
              {arms.map(([arm, title]) => (
                <th key={arm} scope="col">
                  {title}
                </th>
              ))}
              <th scope="col">Moved, fresh</th>
              <th scope="col">Moved, controller</th>
            </tr>
          </thead>
          <tbody>
            {result.windows.map((row) => (
              <tr key={row.step}>
                <th scope="row">{row.step}</th>
                {arms.map(([arm]) => (
                  <td key={arm} data-number>
                    {row[arm].maxOverMean.toFixed(3)}
                  </td>
                ))}
                <td data-number>{formatCount(row.fresh.movedSlots)}</td>
                <td data-number>{formatCount(row.controller.movedSlots)}</td>
              </tr>
            ))}
          </tbody>
        </table>
      </details>
    </div>
  );
}
