// Parts of the pages that compute from a form: fields with their error beside them, figures, a
// command line to copy. They know nothing of what is computed.

import type { ComponentChildren, VNode } from "preact";
import { useEffect, useRef, useState } from "preact/hooks";
import "./workbench.css";

export interface FieldProps {
  readonly label: string;
  readonly value: string;
  readonly onChange: (text: string) => void;
  readonly problem?: string | undefined;
  /** Shown while the field is empty. */
  readonly placeholder?: string;
  readonly hint?: string;
  readonly inputMode?: "numeric" | "decimal" | "text";
  readonly disabled?: boolean;
}

/** A field of text or a number. */
export function Field(props: FieldProps): VNode {
  const { label, value, onChange, problem, placeholder, hint, disabled = false } = props;
  const id = `field-${label.toLowerCase().replace(/[^a-z0-9]+/g, "-")}`;
  const noteId = `${id}-note`;
  const note = problem ?? hint;
  return (
    <div class="field" data-wide={problem !== undefined}>
      <label for={id}>{label}</label>
      <input
        id={id}
        type="text"
        inputMode={props.inputMode ?? "numeric"}
        autocomplete="off"
        spellcheck={false}
        value={value}
        placeholder={placeholder ?? ""}
        disabled={disabled}
        aria-invalid={problem !== undefined}
        aria-describedby={note === undefined ? undefined : noteId}
        onInput={({ currentTarget }) => onChange(currentTarget.value)}
      />
      {note !== undefined && (
        <p id={noteId} class={problem === undefined ? "field-hint" : "field-problem"}>
          {note}
        </p>
      )}
    </div>
  );
}

export interface ChoiceProps<T extends string> {
  readonly label: string;
  readonly value: T;
  readonly options: readonly (readonly [value: T, text: string])[];
  readonly onChange: (value: T) => void;
  /** A sentence about what is chosen. */
  readonly hint?: string | undefined;
  readonly problem?: string | undefined;
}

/** One of several. */
export function Choice<T extends string>(props: ChoiceProps<T>): VNode {
  const { label, value, options, onChange, hint, problem } = props;
  const id = `choice-${label.toLowerCase().replace(/[^a-z0-9]+/g, "-")}`;
  const note = problem ?? hint;
  return (
    <div class="field" data-wide="true">
      <label for={id}>{label}</label>
      <select
        id={id}
        value={value}
        aria-describedby={note === undefined ? undefined : `${id}-note`}
        onChange={({ currentTarget }) => onChange(currentTarget.value as T)}
      >
        {options.map(([name, text]) => (
          <option key={name} value={name}>
            {text}
          </option>
        ))}
      </select>
      {note !== undefined && (
        <p id={`${id}-note`} class={problem === undefined ? "field-hint" : "field-problem"}>
          {note}
        </p>
      )}
    </div>
  );
}

export interface FigureEntry {
  readonly name: string;
  readonly value: string;
  /** What it was, or what it is out of: small, behind the value. */
  readonly beside?: string | undefined;
  readonly color?: "accent" | "second" | "alert" | undefined;
  readonly title?: string | undefined;
}

/** A strip of large figures. */
export function Figures({
  label,
  entries,
}: {
  readonly label: string;
  readonly entries: readonly FigureEntry[];
}): VNode {
  return (
    <dl class="bench-figures" aria-label={label}>
      {entries.map(({ name, value, beside, color, title }) => (
        <div key={name} data-color={color} title={title}>
          <dt>{name}</dt>
          <dd>
            {value}
            {beside !== undefined && <span class="unit"> {beside}</span>}
          </dd>
        </div>
      ))}
    </dl>
  );
}

/** The same computation as a command, to copy. */
export function CommandLine({ command }: { readonly command: string }): VNode {
  const [copied, setCopied] = useState("");
  const line = useRef<HTMLElement>(null);
  useEffect(() => setCopied(""), [command]);
  const copy = async (): Promise<void> => {
    try {
      await navigator.clipboard.writeText(command);
      setCopied("Copied");
    } catch {
      // Without permission for the clipboard the line is selected, and Ctrl+C does the rest.
      const range = document.createRange();
      if (line.current !== null) range.selectNodeContents(line.current);
      const selection = getSelection();
      selection?.removeAllRanges();
      selection?.addRange(range);
      setCopied("Selected: press Ctrl+C");
    }
  };
  return (
    <div class="command-line">
      <code ref={line}>{command}</code>
      <button
        type="button"
        class="button"
        aria-label="Copy the command"
        onClick={() => void copy()}
      >
        Copy
      </button>
      <span class="unit" role="status">
        {copied}
      </span>
    </div>
  );
}

/** A titled part of the form. */
export function FormGroup({
  title,
  children,
}: {
  readonly title: string;
  readonly children: ComponentChildren;
}): VNode {
  return (
    <fieldset class="form-group">
      <legend>{title}</legend>
      {children}
    </fieldset>
  );
}
