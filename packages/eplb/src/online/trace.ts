// Load traces: what every expert of every layer got at every step. A trace is walked step by step
// and never needs to be in memory whole; a recorded one is read from JSON, with every number of it
// checked.

import { InputError } from "@open-infra/errors";
import { shown } from "../shape.ts";
import { checkNumbers, type ExpertCount } from "./statistics.ts";

/** Loads over time. Each walk starts anew and sees the same steps. */
export interface LoadTrace extends ExpertCount {
  readonly numSteps: number;
  /** Steps in order: tokens, [numLayers × numLogical]. The array is reused from step to step. */
  [Symbol.iterator](): Iterator<Float64Array>;
}

/** A trace as JSON has it. */
export interface LoadTraceJson extends ExpertCount {
  /** steps[step][layer][expert] = tokens. */
  readonly steps: readonly (readonly (readonly number[])[])[];
}

/** A trace held in memory, [numSteps × numLayers × numLogical]. */
export class RecordedTrace implements LoadTrace {
  readonly numLayers: number;
  readonly numLogical: number;
  readonly numSteps: number;
  readonly #data: Float64Array;

  /** @throws InputError when the data is not a whole number of steps. */
  constructor(data: Float64Array, { numLayers, numLogical }: ExpertCount) {
    const size = numLayers * numLogical;
    if (size === 0 || data.length % size !== 0) {
      const allowed = `a multiple of ${numLayers} layers × ${numLogical} experts`;
      throw new InputError("data", `an array of ${data.length}`, allowed);
    }
    this.numLayers = numLayers;
    this.numLogical = numLogical;
    this.numSteps = data.length / size;
    this.#data = data;
  }

  *[Symbol.iterator](): Generator<Float64Array, void, undefined> {
    const size = this.numLayers * this.numLogical;
    const step = new Float64Array(size);
    for (let at = 0; at < this.#data.length; at += size) {
      step.set(this.#data.subarray(at, at + size));
      yield step;
    }
  }
}

function listOf(value: unknown, parameter: string, length?: number): readonly unknown[] {
  const allowed = length === undefined ? "an array that is not empty" : `an array of ${length}`;
  if (!Array.isArray(value) || value.length === 0 || (length ?? value.length) !== value.length) {
    throw new InputError(parameter, shown(value), allowed);
  }
  return value;
}

function writeStep(out: Float64Array, step: unknown, index: number, count: ExpertCount): void {
  const rows = listOf(step, `steps[${index}]`, count.numLayers);
  rows.forEach((row, layer) => {
    const values = listOf(row, `steps[${index}][${layer}]`, count.numLogical);
    values.forEach((value, expert) => {
      if (typeof value !== "number" || !(value >= 0 && value < Number.POSITIVE_INFINITY)) {
        const at = `steps[${index}][${layer}][${expert}]`;
        throw new InputError(at, shown(value), "a finite number of at least 0");
      }
      out[layer * count.numLogical + expert] = value;
    });
  });
}

function declared(object: Record<string, unknown>, name: string, actual: number): void {
  const value = object[name];
  if (value === undefined || value === actual) return;
  throw new InputError(name, shown(value), `${actual}, as steps[0] has, or nothing`);
}

/**
 * Reads a trace from parsed JSON: `{"steps": [[[…]]]}` with or without `numLayers` and
 * `numLogical`, or the array of steps alone.
 *
 * @throws InputError naming the step, layer and expert that cannot be used.
 */
export function loadTraceFrom(json: unknown): RecordedTrace {
  const isObject = typeof json === "object" && json !== null && !Array.isArray(json);
  const object = (isObject ? json : { steps: json }) as Record<string, unknown>;
  if (object.steps === undefined) {
    throw new InputError("trace", "an object without steps", '{"steps": [step][layer][expert]}');
  }
  const steps = listOf(object.steps, "steps");
  const rows = listOf(steps[0], "steps[0]");
  const count = { numLayers: rows.length, numLogical: listOf(rows[0], "steps[0][0]").length };
  declared(object, "numLayers", count.numLayers);
  declared(object, "numLogical", count.numLogical);
  const size = count.numLayers * count.numLogical;
  const { numLayers: layers, numLogical: experts } = count;
  checkNumbers("steps", { steps: steps.length, layers, experts });
  const data = new Float64Array(steps.length * size);
  steps.forEach((step, i) => {
    writeStep(data.subarray(i * size, (i + 1) * size), step, i, count);
  });
  return new RecordedTrace(data, count);
}

/** Keeps a trace in the form that `loadTraceFrom` reads. */
export function loadTraceToJson(trace: LoadTrace): LoadTraceJson {
  const { numLayers, numLogical } = trace;
  const steps: number[][][] = [];
  for (const step of trace) {
    steps.push(
      Array.from({ length: numLayers }, (_, layer) =>
        Array.from(step.subarray(layer * numLogical, (layer + 1) * numLogical)),
      ),
    );
  }
  return { numLayers, numLogical, steps };
}
