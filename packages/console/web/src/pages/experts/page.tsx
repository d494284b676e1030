// The experts page: loads and a cluster in, where replicas go and how even that is. Everything is
// computed in this browser; no server is asked.

import type { VNode } from "preact";
import { useEffect } from "preact/hooks";
import type { PageProps } from "../../pages.ts";
import { useAddress } from "../../ui/address.ts";
import { useFileDrop } from "../../ui/file-drop.ts";
import { ExpertsSession } from "./session.ts";
import { Exports } from "./view/exports.tsx";
import { LayerTable, PlaceFigures } from "./view/figures.tsx";
import { ExpertsForm } from "./view/form.tsx";
import { HeatMaps } from "./view/heat-map.tsx";
import { LayerBars } from "./view/layer-bars.tsx";
import { Online } from "./view/online.tsx";
import "./experts.css";

export default function ExpertsPage({ services }: PageProps): VNode {
  const session = services.keep("experts", ExpertsSession);
  useAddress("experts", session);
  // An address that says nothing must still give a first result.
  useEffect(() => session.compute(), [session]);
  const dropping = useFileDrop((file) => void session.open(file));
  const { result, problem, busy } = session.placed.value;
  return (
    <div class="bench-page experts-page" data-dropping={dropping}>
      <h1 class="visually-hidden">Experts</h1>
      <ExpertsForm session={session} />
      <div class="bench-results" data-stale={problem !== null} data-busy={busy} aria-busy={busy}>
        {problem !== null && (
          <div class="error-note" role="alert">
            <p class="error-title">No placement for these inputs</p>
            <p>{problem.message}</p>
          </div>
        )}
        {result === null && busy && (
          <p class="bench-note" role="status">
            Placing…
          </p>
        )}
        {result !== null && (
          <>
            <PlaceFigures result={result} />
            <HeatMaps result={result} session={session} />
            <LayerBars result={result} session={session} />
            <LayerTable result={result} session={session} />
            <Exports result={result} session={session} />
          </>
        )}
        <Online session={session} />
      </div>
    </div>
  );
}
