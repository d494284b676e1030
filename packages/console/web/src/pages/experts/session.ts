// The state of the experts page, kept while other pages are shown: the form, the files, the newest
// results, and the workers that make them.

import { type ReadonlySignal, type Signal, signal } from "@preact/signals";
import { Computation, type Computed } from "../../ui/computation.ts";
import { queryOf, valuesFrom } from "../../ui/form-values.ts";
import { failureOf } from "../../ui/worker-answer.ts";
import type { OnlineResult, PlaceResult } from "./compute.ts";
import { readContent } from "./files.ts";
import {
  defaults,
  type ExpertsValues,
  exampleLoads,
  type FieldName,
  fieldOf,
  type LoadedFile,
  type OnlineRequest,
  onlineRequest,
  type PlaceRequest,
  placeRequest,
  presets,
} from "./inputs.ts";
import type { HeatCell } from "./view/heat-layout.ts";

function newWorker(): Worker {
  return new Worker(new URL("./worker.ts", import.meta.url), { type: "module" });
}

/** One state of the page. */
export class ExpertsSession {
  readonly #values: Signal<ExpertsValues> = signal(defaults);
  readonly #loads: Signal<LoadedFile | null> = signal(null);
  readonly #old: Signal<LoadedFile | null> = signal(null);
  readonly #fileProblem: Signal<string> = signal("");
  readonly #placing: Computation<PlaceRequest, PlaceResult, FieldName> = new Computation({
    create: newWorker,
    fieldOf,
  });
  readonly #replaying: Computation<OnlineRequest, OnlineResult, FieldName> = new Computation({
    create: newWorker,
    fieldOf,
  });
  #files = 0;

  /** The cell whose contents are told, and the layer whose bars are shown. */
  readonly cell: Signal<HeatCell | null> = signal(null);
  readonly layer: Signal<number> = signal(0);

  get values(): ReadonlySignal<ExpertsValues> {
    return this.#values;
  }
  get loads(): ReadonlySignal<LoadedFile | null> {
    return this.#loads;
  }
  get old(): ReadonlySignal<LoadedFile | null> {
    return this.#old;
  }
  get fileProblem(): ReadonlySignal<string> {
    return this.#fileProblem;
  }
  get placed(): ReadonlySignal<Computed<PlaceResult, FieldName>> {
    return this.#placing.state;
  }
  get replayed(): ReadonlySignal<Computed<OnlineResult, FieldName>> {
    return this.#replaying.state;
  }

  /** What the present inputs ask for. */
  get request(): PlaceRequest {
    return placeRequest(this.#values.value, this.#loads.value, this.#old.value);
  }
  get online(): OnlineRequest {
    return onlineRequest(this.#values.value);
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
  set(part: Partial<ExpertsValues>): void {
    this.#values.value = { ...this.#values.peek(), ...part };
    this.compute();
  }

  /** Asks for what has changed; cheap when nothing has. */
  compute(): void {
    const { request, online } = this;
    this.#placing.ask(request, JSON.stringify({ ...request, old: 0, loads: 0 }) + this.#loadsKey());
    this.#replaying.ask(online, JSON.stringify(online));
  }

  /** A preset's cluster; the README's example brings its own loads. */
  preset(index: number): void {
    const preset = presets[index];
    if (preset === undefined) return;
    const isExample = preset.values.experts === "12";
    this.#files++;
    this.#loads.value = isExample ? { name: "example.json", rows: exampleLoads } : null;
    this.set(preset.values);
  }

  /** Reads a file; bare rows are slots instead of loads with `asPlacement`. */
  async open(file: File, asPlacement = false): Promise<void> {
    this.openText(file.name, await file.text(), asPlacement);
  }

  openText(name: string, text: string, asPlacement = false): void {
    try {
      const { loads, placement } = readContent(name, text, asPlacement);
      this.#files++;
      const values: Partial<Record<FieldName, string>> = {};
      if (loads !== undefined) {
        this.#loads.value = { name, rows: loads };
        values.layers = String(loads.length);
        values.experts = String(loads[0]?.length ?? 0);
      }
      if (placement !== undefined) {
        this.#old.value = { name, rows: placement.phy2log };
        values.before = "file";
        values.replicas = String(placement.numReplicas ?? placement.phy2log[0]?.length ?? 0);
        if (placement.numGroups !== undefined) values.groups = String(placement.numGroups);
        if (placement.numNodes !== undefined) values.nodes = String(placement.numNodes);
        if (placement.numGpus !== undefined) values.gpus = String(placement.numGpus);
      }
      this.#fileProblem.value = "";
      this.set(values);
    } catch (error) {
      this.#fileProblem.value = failureOf(error).message;
    }
  }

  /** Back to made-up loads, or to a placement that is not from a file. */
  forget(what: "loads" | "old"): void {
    this.#files++;
    if (what === "loads") this.#loads.value = null;
    else this.#old.value = null;
    this.set(what === "old" && this.#values.peek().before === "file" ? { before: "in-order" } : {});
  }

  /** Files are told apart by how many came, generated loads by their numbers. */
  #loadsKey(): string {
    const loads = this.#loads.peek();
    return `${this.#files}${loads === null ? JSON.stringify(this.request.loads) : ""}`;
  }
}
