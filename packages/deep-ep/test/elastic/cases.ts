// The original's grid of cases, and the shapes that break things, as lists for any transport.

import { seededRandom } from "@open-infra/testing";
import type { GridCase, GridPart } from "./grid.ts";
import type { WorldShape } from "./world.ts";

export const flags: readonly boolean[] = [false, true];

/** The original's grid; what it does not vary is drawn. */
export function fullGrid(seed: number): GridCase[] {
  const random = seededRandom(seed);
  return flags.flatMap((doHandleCopy) =>
    [128, 1].flatMap((expertAlignment) =>
      flags.flatMap((fp8) =>
        [0, 1, 2].flatMap((numBiases) =>
          flags.flatMap((previous) =>
            flags.map((async) => ({
              doHandleCopy,
              expertAlignment,
              fp8,
              numBiases,
              previous,
              async,
              worstCase: random.next() < 0.3,
              columnScales: random.next() < 0.5,
              weighted: random.next() < 0.8,
            })),
          ),
        ),
      ),
    ),
  );
}

/** A few points of it. */
export function someCases(seed: number, count: number): GridCase[] {
  const random = seededRandom(seed);
  const all = fullGrid(seed);
  return Array.from({ length: count }, () => random.pick(all));
}

/** A world that most cases are variations of. */
export function plainShape(seed: number, size: number): WorldShape {
  return {
    seed,
    size,
    scaleup: size,
    numExperts: 4 * size,
    numTopk: 4,
    numMaxTokensPerRank: 9,
    hidden: 72,
    expertAlignment: 1,
    masked: 0.15,
  };
}

/** One kind of buffer over some cases. */
export function part(
  shape: WorldShape,
  cases: readonly GridCase[],
  options: Partial<Omit<GridPart, "shape" | "cases">> = {},
): GridPart {
  const allowed = { allowHybridMode: true, allowMultipleReduction: true, directMemory: true };
  return { ...allowed, ...options, shape, cases };
}

/** Every kind of buffer, a few cases each. */
export function everyKind(shape: WorldShape, casesEach: number, hybrid: boolean): GridPart[] {
  return flags.flatMap((allowMultipleReduction) =>
    flags.flatMap((directMemory) =>
      (hybrid ? flags : [true]).map((allowHybridMode, i) =>
        part(shape, someCases(shape.seed + i, casesEach), {
          allowMultipleReduction,
          directMemory,
          allowHybridMode,
        }),
      ),
    ),
  );
}

/** Worlds at the edges, on four ranks. */
export const oddShapes: Readonly<Record<string, Partial<WorldShape>>> = {
  "all tokens select one expert": { favourite: 5, masked: 0 },
  "no rank has a token": { tokens: [0, 0, 0, 0] },
  "one rank has none, one has all": { tokens: [0, 9, 1, 9] },
  "nothing is selected": { masked: 1 },
  "one expert a rank": { numExperts: 4, numTopk: 3 },
  "more selections than experts of a rank": { numExperts: 8, numTopk: 7, masked: 0 },
  "one selection, one column": { numTopk: 1, hidden: 1 },
  "experts may repeat": { repeats: true, numTopk: 6, masked: 0 },
  "an odd number of columns": { hidden: 333 },
};
