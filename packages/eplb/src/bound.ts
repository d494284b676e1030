// Lower bounds on the maximum load of a GPU.

import type { EplbShape } from "./placement.ts";

/** Lower bounds of layers of one shape. */
export class LayerBounds {
  readonly #numGpus: number;

  constructor(_numLogical: number, shape: EplbShape, _nodeLimit: boolean) {
    this.#numGpus = shape.numGpus;
  }

  lowerBound(loads: Float64Array): number {
    let total = 0;
    for (const load of loads) total += load;
    return total / this.#numGpus;
  }
}
