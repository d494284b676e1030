import { InputError } from "@open-infra/errors";
import { describe, expect, it } from "vitest";
import {
  balancedPacking,
  measurePlacement,
  placementFrom,
  type RebalanceOptions,
  rebalanceExperts,
  replicateExperts,
} from "../src/index.ts";

const shape = { numReplicas: 16, numGroups: 4, numNodes: 2, numGpus: 8 };
const row = Array.from({ length: 12 }, (_, i) => i + 1);
const from = placementFrom([[...row.map((_, i) => i), 0, 1, 2, 3]], 12);

function message(
  weight: unknown,
  options: Partial<Record<keyof RebalanceOptions, unknown>>,
): string {
  try {
    rebalanceExperts(weight as number[][], { ...shape, ...options } as RebalanceOptions);
  } catch (error) {
    expect(error).toBeInstanceOf(InputError);
    return (error as Error).message;
  }
  throw new Error("accepted");
}

describe("a shape that does not fit", () => {
  it.each([
    [{ numReplicas: 17 }, "numReplicas is 17; expected a multiple of numGpus 8 (17 % 8 = 1)"],
    [{ numReplicas: 8 }, "numReplicas is 8; expected at least one slot for each of the 12 experts"],
    [
      { numGroups: 8 },
      "the number of experts is 12; expected a multiple of numGroups 8 (12 % 8 = 4)",
    ],
    [
      { numGpus: 4, numNodes: 4, numGroups: 4, numReplicas: 12.5 },
      "numReplicas is 12.5; expected an integer of at least 1",
    ],
    [{ numGroups: 3, numNodes: 3 }, "numGpus is 8; expected a multiple of numNodes 3 (8 % 3 = 2)"],
    [
      { numGroups: 3, policy: "deepseek-hierarchical" },
      "numGroups is 3; expected a multiple of numNodes 2 (3 % 2 = 1)",
    ],
    [{ numGpus: 0 }, "numGpus is 0; expected an integer of at least 1"],
    [{ numNodes: "2" }, 'numNodes is "2"; expected an integer of at least 1'],
    [{ numGroups: undefined }, "numGroups is undefined; expected an integer of at least 1"],
    [{ numReplicas: 2 ** 21 }, "numReplicas is 2097152; expected at most 1048576"],
  ])("%j", (options, text) => {
    expect(message([row], options)).toBe(text);
  });

  it("is fine for the global policy, as in the original, without whole groups and nodes", () => {
    const result = rebalanceExperts([row], { ...shape, numGroups: 5, numNodes: 3 });
    expect(result.report.nodeLimit).toBe(false);
    expect(result.report.layers[0]?.nodeLoads).toHaveLength(3);
  });
});

describe("loads that cannot be used", () => {
  const rows = (expert: number, value: unknown) => [
    row,
    row.map((load, i) => (i === expert ? value : load)),
  ];
  const finite = "expected a finite number, at least 0, in the range of float32";
  it.each([
    [[], "weight is no rows; expected at least one layer"],
    [undefined, "weight is undefined; expected an array of rows, one a layer"],
    [[[]], "weight[0] is an empty row; expected at least one expert"],
    [[row, row.slice(1)], "weight[1] is a row of 11; expected a row of 12, as weight[0] is"],
    [[row, 5], "weight[1] is 5; expected a row of loads, one an expert"],
    [rows(3, Number.NaN), `weight[1][3] is NaN; ${finite}`],
    [rows(4, -1), `weight[1][4] is -1; ${finite}`],
    [rows(0, Number.POSITIVE_INFINITY), `weight[1][0] is Infinity; ${finite}`],
    [rows(11, 1e39), `weight[1][11] is 1e+39; ${finite}`],
    [rows(2, "7"), `weight[1][2] is "7"; ${finite}`],
    [rows(2, null), `weight[1][2] is null; ${finite}`],
    [rows(2, undefined), `weight[1][2] is undefined; ${finite}`],
  ])("%j", (weight, text) => {
    expect(message(weight, {})).toBe(text);
  });
});

describe("options that cannot be used", () => {
  const migrate = { policy: "minimal-migration-global", from };
  it.each([
    [{ policy: "best" }, /^policy is "best"; expected deepseek, deepseek-hierarchical, /],
    [
      { policy: "minimal-migration" },
      /^from is undefined; expected the placement in use, .* "minimal-migration" starts from$/,
    ],
    [
      { ...migrate, targetMaxOverMean: 0.99 },
      "targetMaxOverMean is 0.99; expected a number of at least 1",
    ],
    [{ ...migrate, maxMovedSlots: -1 }, "maxMovedSlots is -1; expected a number of at least 0"],
    [
      { ...migrate, maxMovedSlots: Number.NaN },
      "maxMovedSlots is NaN; expected a number of at least 0",
    ],
    [
      { ...migrate, maxMovedBytes: 1e9 },
      "bytesPerExpert is undefined; expected an integer of at least 1",
    ],
    [
      { policy: "optimized", duplicates: "always" },
      'duplicates is "always"; expected "if-lighter" or "never"',
    ],
    [
      { ...migrate, duplicates: "always" },
      'duplicates is "always"; expected "if-lighter" or "never"',
    ],
    [
      { policy: "optimized-global", numReplicas: 65_536, numGpus: 1 },
      "numReplicas ÷ numGpus is 65536; expected at most 65535 for policy optimized-global",
    ],
  ])("%j", (options, text) => {
    expect(message([row], options)).toEqual(
      text instanceof RegExp ? expect.stringMatching(text) : text,
    );
  });

  it("names what an old placement does not fit", () => {
    expect(message([row, row], { from })).toBe(
      "from.numLayers is 1; expected 2, the rows of weight",
    );
    expect(message([row], { from, numReplicas: 24 })).toBe(
      "from.numReplicas is 16; expected 24, numReplicas of the shape",
    );
  });
});

describe("placements from outside", () => {
  it.each([
    [[], "phy2log is an array of 0; expected an array of rows, one a layer"],
    [
      [
        [0, 1],
        [0, 1, 2],
      ],
      "phy2log[1] is a row of 3; expected a row of 2, as phy2log[0] is",
    ],
    [[[0, 1, 3]], "phy2log[0][2] is 3; expected an expert from 0 to 2"],
    [[[0, 1.5, 2]], "phy2log[0][1] is 1.5; expected an expert from 0 to 2"],
    [[[0, 1, -1]], "phy2log[0][2] is -1; expected an expert from 0 to 2"],
    [
      [
        [0, 1, 2],
        [0, 0, 2],
      ],
      "phy2log[1] is a row without expert 1; expected every expert from 0 to 2 in at least one",
    ],
  ])("%j", (rows, text) => {
    expect(() => placementFrom(rows, 3)).toThrow(text);
  });

  it("must fit the loads they are measured by", () => {
    expect(() => measurePlacement([row, row], from, shape)).toThrow(
      "placement.numLayers is 1; expected 2, the rows of weight",
    );
    const holes = placementFrom([new Int32Array(16).fill(-1)], 12, { allowMissing: true });
    expect(() => measurePlacement([row], holes, shape)).toThrow(
      "placement.phy2log[0] is a row without expert 0",
    );
  });
});

describe("the two steps alone", () => {
  it("say what does not fit", () => {
    expect(() => balancedPacking([[1, 2, 3]], 2)).toThrow(
      "numPacks is 2; expected a divisor of the 3 items",
    );
    expect(() => replicateExperts([[1, 2, 3]], 2)).toThrow(
      "numPhysical is 2; expected an integer from 3, the number of experts, to 1048576",
    );
    expect(() => balancedPacking([[1, Number.NaN]], 1)).toThrow("weight[0][1] is NaN");
  });
});
