// The state of the pipeline page, kept while other pages are shown: the form, the newest results,
// and what is chosen in the picture.

import { type ReadonlySignal, type Signal, signal } from "@preact/signals";
import { Computation, type Computed } from "../../ui/computation.ts";
import { queryOf, valuesFrom } from "../../ui/form-values.ts";
import type { CompareResult, PipelineResult } from "./compute.ts";
import {
  type CompareRequest,
  compareRequest,
  defaults,
  type FieldName,
  fieldOf,
  type PipelineRequest,
  type PipelineValues,
  pipelineRequest,
  presets,
} from "./inputs.ts";
import type { CellRef } from "./timeline/cells.ts";

function newWorker(): Worker {
  return new Worker(new URL("./worker.ts", import.meta.url), { type: "module" });
}

/** One state of the page. */
export class PipelineSession {
  readonly #values: Signal<PipelineValues> = signal(defaults);
  readonly #simulating: Computation<PipelineRequest, PipelineResult, FieldName> = new Computation({
    create: newWorker,
    fieldOf,
  });
  readonly #comparing: Computation<CompareRequest, CompareResult, FieldName> = new Computation({
    create: newWorker,
    fieldOf,
  });

  /** Whether the critical path is outlined. */
  readonly showCritical: Signal<boolean> = signal(false);
  /** The cell whose facts are told. */
  readonly cell: Signal<CellRef | null> = signal(null);

  get values(): ReadonlySignal<PipelineValues> {
    return this.#values;
  }
  get simulated(): ReadonlySignal<Computed<PipelineResult, FieldName>> {
    return this.#simulating.state;
  }
  get compared(): ReadonlySignal<Computed<CompareResult, FieldName>> {
    return this.#comparing.state;
  }

  /** What the present inputs ask for. */
  get request(): PipelineRequest {
    return pipelineRequest(this.#values.value);
  }
  get comparison(): CompareRequest {
    return compareRequest(this.#values.value);
  }

  get query(): string {
    return queryOf<FieldName>(this.#values.value, defaults);
  }

  /** Takes over an address. */
  readonly take = (rest: string): void => {
    const values = valuesFrom<FieldName>(rest, defaults);
    if (queryOf(values, defaults) !== this.query) this.set(values);
  };

  /** Changes fields. */
  set(part: Partial<PipelineValues>): void {
    this.#values.value = { ...this.#values.peek(), ...part };
    this.compute();
  }

  preset(index: number): void {
    const preset = presets[index];
    if (preset !== undefined) this.set(preset.values);
  }

  /** Asks for what has changed; cheap when nothing has. */
  compute(): void {
    const { request, comparison } = this;
    this.#simulating.ask(request, JSON.stringify(request));
    this.#comparing.ask(comparison, JSON.stringify(comparison));
  }
}
