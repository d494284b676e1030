// Taking a result along: as JSON, and as the command that gives the same.

import type { VNode } from "preact";
import { saveText } from "../../../ui/save-text.ts";
import { CommandLine } from "../../../ui/workbench.tsx";
import type { PlaceResult } from "../compute.ts";
import { beforeJson, loadsJson, resultJson } from "../export.ts";
import { rebalanceCommand, startsFromBaseline } from "../inputs.ts";
import type { ExpertsSession } from "../session.ts";

export function Exports({
  result,
  session,
}: {
  readonly result: PlaceResult;
  readonly session: ExpertsSession;
}): VNode {
  const { request } = session;
  const loads = session.loads.value;
  const old = session.old.value;
  const files = {
    loads: loads?.name ?? "loads.json",
    old: request.baseline === "file" ? (old?.name ?? "before.json") : "before.json",
  };
  const needsBefore = startsFromBaseline(request) && request.baseline !== "file";
  return (
    <section class="bench-card" aria-label="Take it along">
      <header>
        <h2>On the command line</h2>
        <div class="actions">
          <button
            type="button"
            class="button"
            onClick={() => saveText("placement.json", resultJson(result))}
          >
            Save the placement
          </button>
          <button
            type="button"
            class="button"
            onClick={() => saveText(files.loads, loadsJson(result))}
          >
            Save the loads
          </button>
          {needsBefore && (
            <button
              type="button"
              class="button"
              onClick={() => saveText(files.old, beforeJson(result))}
            >
              Save the placement before
            </button>
          )}
        </div>
      </header>
      <CommandLine command={rebalanceCommand(request, files)} />
    </section>
  );
}
