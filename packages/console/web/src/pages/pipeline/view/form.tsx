// The form of the pipeline page: schedule and sizes, times, memory.

import { builtInNames } from "@open-infra/dualpipe";
import type { VNode } from "preact";
import { Choice, Field, FormGroup } from "../../../ui/workbench.tsx";
import { type FieldName, presets, scheduleOf, scheduleTexts } from "../inputs.ts";
import type { PipelineSession } from "../session.ts";

interface BoundProps {
  readonly session: PipelineSession;
  readonly name: FieldName;
  readonly label: string;
  readonly placeholder?: string;
  readonly hint?: string;
}

/** A field of the page, bound to its value and its error. */
export function BoundField({ session, name, label, placeholder, hint }: BoundProps): VNode {
  return (
    <Field
      label={label}
      value={session.values.value[name]}
      onChange={(text) => session.set({ [name]: text })}
      problem={problemOf(session, name)}
      inputMode="text"
      {...(placeholder !== undefined && { placeholder })}
      {...(hint !== undefined && { hint })}
    />
  );
}

function problemOf(session: PipelineSession, name: FieldName): string | undefined {
  const { problem } = session.simulated.value;
  return problem?.field === name ? problem.message : undefined;
}

export function PipelineForm({ session }: { readonly session: PipelineSession }): VNode {
  return (
    <form class="bench-form" aria-label="Inputs" onSubmit={(event) => event.preventDefault()}>
      <ScheduleGroup session={session} />
      <TimesGroup session={session} />
      <MemoryGroup session={session} />
    </form>
  );
}

function ScheduleGroup({ session }: { readonly session: PipelineSession }): VNode {
  const values = session.values.value;
  const schedule = scheduleOf(values);
  return (
    <FormGroup title="Pipeline">
      <div class="field" data-wide="true">
        <label for="choice-preset">Preset</label>
        <select
          id="choice-preset"
          value=""
          onChange={({ currentTarget }) => {
            session.preset(Number(currentTarget.value));
            currentTarget.value = "";
          }}
        >
          <option value="">Choose a pipeline</option>
          {presets.map(({ name }, index) => (
            <option key={name} value={index}>
              {name}
            </option>
          ))}
        </select>
      </div>
      <Choice
        label="Schedule"
        value={schedule}
        options={builtInNames.map((name) => [name, name] as const)}
        onChange={(name) => session.set({ schedule: name })}
        hint={scheduleTexts[schedule]}
        problem={problemOf(session, "schedule")}
      />
      <BoundField session={session} name="ranks" label="Ranks" />
      <BoundField session={session} name="microBatches" label="Micro-batches" />
      {schedule === "interleaved-1f1b" && (
        <BoundField session={session} name="chunks" label="Chunks a rank" />
      )}
      <label class="check wide">
        <input
          type="checkbox"
          checked={values.partial === "yes"}
          onChange={({ currentTarget }) =>
            session.set({ partial: currentTarget.checked ? "yes" : "" })
          }
        />
        Take any number of micro-batches
      </label>
    </FormGroup>
  );
}

function TimesGroup({ session }: { readonly session: PipelineSession }): VNode {
  return (
    <FormGroup title="Times">
      <BoundField session={session} name="f" label="Forward F" />
      <BoundField session={session} name="b" label="Backward B" />
      <BoundField session={session} name="w" label="of it, weights W" />
      <BoundField session={session} name="fb" label="Overlapped FB" placeholder="F + B" />
      <BoundField session={session} name="latency" label="Transfer" />
      <p class="field-hint wide">
        Of one rank's share of the model, in any unit: schedules with two stages a rank run stages
        of half that. One number, or one for each rank: <code>1 1 1 1.6</code>. FB also as{" "}
        <code>85 %</code> of F + B.
      </p>
    </FormGroup>
  );
}

function MemoryGroup({ session }: { readonly session: PipelineSession }): VNode {
  return (
    <FormGroup title="Memory">
      <BoundField session={session} name="limit" label="Most held" placeholder="no limit" />
      <p class="field-hint wide">
        Micro-batches a rank may hold between forward and backward, each counted as one rank's share
        of the model.
      </p>
    </FormGroup>
  );
}
