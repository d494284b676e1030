// The form of the experts page: loads, cluster, what to compare with, policy.

import { type PolicyName, policyNames } from "@open-infra/eplb";
import type { VNode } from "preact";
import { useRef, useState } from "preact/hooks";
import { choiceOf } from "../../../ui/form-values.ts";
import { Choice, Field, FormGroup } from "../../../ui/workbench.tsx";
import {
  type Baseline,
  baselineNames,
  baselines,
  baselineTexts,
  choices,
  type ExpertsValues,
  type FieldName,
  policyOf,
  policyTexts,
  presets,
} from "../inputs.ts";
import type { ExpertsSession } from "../session.ts";

/** A field of the page, bound to its value and its error. */
export function BoundField({
  session,
  name,
  label,
  placeholder,
  hint,
  disabled = false,
}: {
  readonly session: ExpertsSession;
  readonly name: FieldName;
  readonly label: string;
  readonly placeholder?: string;
  readonly hint?: string;
  readonly disabled?: boolean;
}): VNode {
  return (
    <Field
      label={label}
      value={session.values.value[name]}
      onChange={(text) => session.set({ [name]: text })}
      problem={problemOf(session, name)}
      inputMode="decimal"
      disabled={disabled}
      {...(placeholder !== undefined && { placeholder })}
      {...(hint !== undefined && { hint })}
    />
  );
}

/** Fields of the online part alone, which an error of its replay belongs beside. */
const onlineFields: ReadonlySet<FieldName> = new Set(["steps", "interval", "stepBudget"]);

function problemOf(session: ExpertsSession, name: FieldName): string | undefined {
  const { problem } = (onlineFields.has(name) ? session.replayed : session.placed).value;
  return problem?.field === name ? problem.message : undefined;
}

export function ExpertsForm({ session }: { readonly session: ExpertsSession }): VNode {
  return (
    <form class="bench-form" aria-label="Inputs" onSubmit={(event) => event.preventDefault()}>
      <ClusterGroup session={session} />
      <LoadsGroup session={session} />
      <PolicyGroup session={session} />
    </form>
  );
}

function ClusterGroup({ session }: { readonly session: ExpertsSession }): VNode {
  return (
    <FormGroup title="Cluster">
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
          <option value="">Choose a model and a cluster</option>
          {presets.map(({ name }, index) => (
            <option key={name} value={index}>
              {name}
            </option>
          ))}
        </select>
      </div>
      <BoundField session={session} name="replicas" label="Slots a layer" />
      <BoundField session={session} name="groups" label="Expert groups" />
      <BoundField session={session} name="gpus" label="GPUs" />
      <BoundField session={session} name="nodes" label="Nodes" />
    </FormGroup>
  );
}

const popularityTexts = {
  lognormal: "log-normal: exp(skew × normal)",
  zipf: "Zipf: 1 ÷ rank^skew",
  uniform: "uniform: all alike",
} as const;

function LoadsGroup({ session }: { readonly session: ExpertsSession }): VNode {
  const loads = session.loads.value;
  const { popularity } = session.values.value;
  const fromFile = loads !== null;
  return (
    <FormGroup title="Loads">
      <BoundField session={session} name="layers" label="Layers" disabled={fromFile} />
      <BoundField session={session} name="experts" label="Experts a layer" disabled={fromFile} />
      {fromFile ? (
        <p class="file-line wide">
          From <code>{loads.name}</code>
          <button type="button" class="quiet-button" onClick={() => session.forget("loads")}>
            Make them up instead
          </button>
        </p>
      ) : (
        <>
          <Choice
            label="Popularity of experts"
            value={choiceOf(popularity, choices.popularity)}
            options={choices.popularity.map((name) => [name, popularityTexts[name]] as const)}
            onChange={(value) => session.set({ popularity: value })}
          />
          <BoundField session={session} name="skew" label="Skew" />
          <BoundField session={session} name="seed" label="Seed" />
        </>
      )}
      <div class="actions wide">
        <FileButton label="Choose loads…" onFile={(file) => void session.open(file)} />
      </div>
      <Paste session={session} />
      <p class="field-hint wide">
        Or drop a JSON file: rows of loads, or what <code>eplb rebalance --json</code> printed. It
        stays in this browser.
      </p>
      {session.fileProblem.value !== "" && (
        <p class="field-problem wide" role="alert">
          {session.fileProblem.value}
        </p>
      )}
    </FormGroup>
  );
}

function Paste({ session }: { readonly session: ExpertsSession }): VNode {
  const [text, setText] = useState("");
  return (
    <details class="wide">
      <summary>Paste JSON</summary>
      <textarea
        aria-label="JSON of loads or of a placement"
        rows={4}
        spellcheck={false}
        placeholder="[[90, 132, 40, …], …]"
        value={text}
        onInput={({ currentTarget }) => setText(currentTarget.value)}
      />
      <button
        type="button"
        class="button"
        disabled={text.trim() === ""}
        onClick={() => session.openText("pasted.json", text)}
      >
        Use it
      </button>
    </details>
  );
}

/** A button that lets a file be chosen. */
function FileButton({
  label,
  onFile,
}: {
  readonly label: string;
  readonly onFile: (file: File) => void;
}): VNode {
  const input = useRef<HTMLInputElement>(null);
  return (
    <>
      <button type="button" class="button" onClick={() => input.current?.click()}>
        {label}
      </button>
      <input
        ref={input}
        type="file"
        hidden
        accept=".json,application/json"
        aria-label={label}
        onChange={({ currentTarget }) => {
          const file = currentTarget.files?.[0];
          // Chosen again, the same file must be an event again.
          currentTarget.value = "";
          if (file !== undefined) onFile(file);
        }}
      />
    </>
  );
}

/**
 * Experts in order do not keep groups on nodes, which migration builds on; what it is for is loads
 * that have changed.
 */
function changeOfPolicy(policy: PolicyName, before: Baseline): Partial<ExpertsValues> {
  const migrates = policy.startsWith("minimal-migration");
  return { policy, ...(migrates && before === "in-order" && { before: "drifted" }) };
}

function PolicyGroup({ session }: { readonly session: ExpertsSession }): VNode {
  const values = session.values.value;
  const policy = policyOf(values.policy);
  const before = choiceOf(values.before, baselines);
  const old = session.old.value;
  const fileText =
    old === null ? "Drop the JSON of eplb rebalance, or choose it." : `From ${old.name}.`;
  const problem = problemOf(session, "before");
  return (
    <FormGroup title="Placement">
      <Choice
        label="Policy"
        value={policy}
        options={policyNames.map((name) => [name, name] as const)}
        onChange={(value) => session.set(changeOfPolicy(value, before))}
        hint={policyTexts[policy]}
        problem={problemOf(session, "policy")}
      />
      {policy.startsWith("minimal-migration") && (
        <>
          <BoundField session={session} name="target" label="Target" placeholder="1.01 × mean" />
          <BoundField session={session} name="budget" label="Most moved" placeholder="no limit" />
        </>
      )}
      <Choice
        label="Before"
        value={before}
        options={baselines.map((name) => [name, baselineNames[name]] as const)}
        onChange={(value) => session.set({ before: value })}
        hint={before === "file" ? fileText : baselineTexts[before]}
        problem={problem}
      />
      {before === "drifted" && <BoundField session={session} name="drift" label="Drift, ± %" />}
      <div class="actions wide">
        <FileButton
          label="Choose old placement…"
          onFile={(file) => void session.open(file, true)}
        />
        {old !== null && (
          <button type="button" class="quiet-button" onClick={() => session.forget("old")}>
            Forget it
          </button>
        )}
      </div>
    </FormGroup>
  );
}
