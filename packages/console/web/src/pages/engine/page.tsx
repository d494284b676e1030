// The engine page: what the model is, what the engine does now, and the last five minutes of it.

import { useSignal } from "@preact/signals";
import type { VNode } from "preact";
import { type Sample, spanOf, totalHitRate } from "../../api/stats-history.ts";
import type { StatsFacts, StatsMessage } from "../../api/wire.ts";
import type { PageProps } from "../../pages.ts";
import {
  formatCount,
  formatLarge,
  formatPercent,
  formatUptime,
  NOT_KNOWN,
} from "../../ui/format.ts";
import { Panel } from "./panel.tsx";
import { panels } from "./panels.ts";
import "./engine.css";

export default function EnginePage({ services }: PageProps): VNode {
  const samples = services.samples.value;
  const latest = services.latest.value;
  const state = services.feedState.value;
  const hovered = useSignal<number | null>(null);
  if (state.phase === "unsupported") {
    return (
      <div class="empty">
        <h1>No statistics</h1>
        <p>This server does not publish the engine's statistics: {state.message}</p>
        <p>
          <button type="button" class="button" onClick={() => services.reconnect()}>
            Ask again
          </button>
        </p>
      </div>
    );
  }
  const shown = hovered.value === null ? samples.at(-1) : samples[hovered.value];
  return (
    <div class="engine-page" data-stale={state.phase !== "live"}>
      <h1 class="visually-hidden">Engine</h1>
      <ModelStrip message={latest} />
      <p class="hover-note" aria-hidden="true">
        {hoverText(samples, shown, hovered.value)}
      </p>
      <div class="panels">
        {panels.map((panel) => (
          <Panel
            key={panel.title}
            panel={panel}
            samples={samples}
            shown={shown}
            stats={latest?.stats}
            onHover={(index) => {
              hovered.value = index;
            }}
          />
        ))}
        <Totals message={latest} />
      </div>
    </div>
  );
}

function hoverText(
  samples: readonly Sample[],
  shown: Sample | undefined,
  hovered: number | null,
): string {
  const last = samples.at(-1);
  if (hovered === null || shown === undefined || last === undefined) {
    const minutes = spanOf(samples) / 60;
    return `The last ${minutes === 1 ? "minute" : `${minutes} minutes`}, a sample a second`;
  }
  return `${Math.round(last.time - shown.time)} s ago`;
}

function ModelStrip({ message }: { readonly message: StatsMessage | null }): VNode {
  const model = message?.model;
  const facts: readonly (readonly [string, string | undefined])[] = [
    ["Model", model?.id],
    ["Architecture", model?.architecture],
    ["Parameters", model && formatLarge(model.parameters)],
    ["Dtype", model?.dtype],
    ["Context", model && `${formatCount(model.maxModelLen)} tokens`],
    ["Device", model?.device],
    ["Up for", message ? formatUptime(message.uptimeSeconds) : undefined],
  ];
  return (
    <dl class="model-strip">
      {facts.map(([name, value]) => (
        <div key={name}>
          <dt>{name}</dt>
          <dd title={value}>{value ?? NOT_KNOWN}</dd>
        </div>
      ))}
    </dl>
  );
}

const totals: readonly (readonly [string, (stats: StatsFacts) => number])[] = [
  ["Generated tokens", (stats) => stats.generationTokens],
  ["Prompt tokens", (stats) => stats.promptTokens],
  ["Steps", (stats) => stats.steps],
  ["Preemptions", (stats) => stats.preemptions],
];

function Totals({ message }: { readonly message: StatsMessage | null }): VNode {
  const stats = message?.stats;
  return (
    <section class="panel totals" aria-label="Since start">
      <h2>Since start</h2>
      <dl>
        {totals.map(([name, read]) => (
          <div key={name}>
            <dt>{name}</dt>
            <dd>{formatCount(stats && read(stats))}</dd>
          </div>
        ))}
        <div>
          <dt>Prefix hit rate</dt>
          <dd>{formatPercent(message && totalHitRate(message))}</dd>
        </div>
        {Object.entries(stats?.finished ?? {}).map(([reason, count]) => (
          <div key={reason}>
            <dt>Finished: {reason}</dt>
            <dd>{formatCount(count)}</dd>
          </div>
        ))}
      </dl>
    </section>
  );
}
