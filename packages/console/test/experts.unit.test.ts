// What the experts page computes and says, without a browser: files, addresses, placements beside
// the package's own, moved slots, the heat map's scale and layout, commands, and the worker that
// only answers the newest question.

import {
  alignSlots,
  measurePlacement,
  placementFrom,
  policyNames,
  rebalanceExperts,
  scenarios,
} from "@open-infra/eplb";
import { InputError } from "@open-infra/errors";
import { seededRandom, testSeed } from "@open-infra/testing";
import { describe, expect, it, vi } from "vitest";
import {
  earlierLoads,
  loadsOf,
  movedSlotsOf,
  place,
  replay,
} from "../web/src/pages/experts/compute.ts";
import { beforeJson, loadsJson, resultJson, rowsOf } from "../web/src/pages/experts/export.ts";
import { readContent } from "../web/src/pages/experts/files.ts";
import {
  defaults,
  type ExpertsValues,
  exampleLoads,
  fieldOf,
  onlineRequest,
  placeRequest,
  policyTexts,
  presets,
  rebalanceCommand,
  scenarioTexts,
  simulateCommand,
} from "../web/src/pages/experts/inputs.ts";
import {
  cellAt,
  cellBeside,
  columnLeft,
  heatHeight,
  heatLayout,
} from "../web/src/pages/experts/view/heat-layout.ts";
import {
  heatColor,
  legendRatios,
  placeOf,
  scaleEnd,
} from "../web/src/pages/experts/view/heat-scale.ts";
import { ratioTicks } from "../web/src/pages/experts/view/ratio-ticks.ts";
import { slotsOfGpu } from "../web/src/pages/experts/view/slots.ts";
import { numberOf, queryOf, valuesFrom } from "../web/src/ui/form-values.ts";
import { NewestWorker, type WorkerLike, type WorkerReply } from "../web/src/ui/newest-worker.ts";
import { failureOf } from "../web/src/ui/worker-answer.ts";

const small: ExpertsValues = {
  ...defaults,
  layers: "3",
  experts: "24",
  replicas: "32",
  groups: "4",
  nodes: "2",
  gpus: "8",
};
const example = { name: "example.json", rows: exampleLoads };
const cluster = { numReplicas: 16, numGroups: 4, numNodes: 2, numGpus: 8 };
const exampleValues: ExpertsValues = { ...defaults, ...presets.at(-1)?.values };

describe("the form in an address", () => {
  it("comes back as it was, whatever stands in the fields", () => {
    const seed = testSeed();
    const source = seededRandom(seed);
    const random = (): number => source.next();
    const letters = "0123456789 ,.%&=?#/+é−";
    for (let round = 0; round < 200; round++) {
      const values = { ...defaults } as Record<keyof typeof defaults, string>;
      for (const name of Object.keys(values) as (keyof typeof defaults)[]) {
        if (random() < 0.7) continue;
        const length = Math.floor(random() * 8);
        const pick = (): string => letters[Math.floor(random() * letters.length)] as string;
        values[name] = Array.from({ length }, pick).join("");
      }
      const query = queryOf(values, defaults);
      expect(valuesFrom(query, defaults), `seed ${seed}, ${query}`).toEqual(values);
    }
  });

  it("says nothing of what is as it was, and leaves out what it does not know", () => {
    expect(queryOf(defaults, defaults)).toBe("");
    expect(queryOf({ ...defaults, gpus: "64" }, defaults)).toBe("?gpus=64");
    expect(valuesFrom("?gpus=16&nothing=1", defaults)).toEqual({ ...defaults, gpus: "16" });
    expect(valuesFrom("", defaults)).toEqual(defaults);
  });

  it("reads numbers as people write them", () => {
    expect(numberOf(" 1,024 ")).toBe(1024);
    expect(numberOf("")).toBeNaN();
    expect(numberOf("twelve")).toBeNaN();
  });
});

describe("files", () => {
  it("are loads in three forms, or a placement", () => {
    expect(readContent("a", "[[1, 2], [3, 4]]")).toEqual({
      loads: [
        [1, 2],
        [3, 4],
      ],
    });
    expect(readContent("a", "\uFEFF[1, 2]")).toEqual({ loads: [[1, 2]] });
    expect(readContent("a", '{"weight": [[1, 2]]}')).toEqual({ loads: [[1, 2]] });
    expect(readContent("a", "[[0, 1]]", true)).toEqual({ placement: { phy2log: [[0, 1]] } });
    expect(readContent("a", '{"phy2log": [[0, 1, 0]], "numGpus": 3, "policy": "x"}')).toEqual({
      placement: { phy2log: [[0, 1, 0]], numGpus: 3 },
    });
  });

  it("that are none of these are refused with what they are", () => {
    const refusal = (text: string): string => {
      try {
        readContent("file.json", text);
      } catch (error) {
        if (error instanceof InputError) return error.message;
        throw error;
      }
      return "";
    };
    expect(refusal("[1, 2")).toMatch(/^file\.json is not JSON: .*; expected a JSON document$/);
    expect(refusal("[]")).toBe(
      "file.json is an empty array; expected rows of numbers, one a layer",
    );
    expect(refusal('{"loads": 1}')).toContain("file.json is an object with loads; expected");
    expect(refusal("7")).toContain("file.json is number");
    expect(refusal('{"weight": null}')).toContain("weight is null");
  });
});

describe("a placement", () => {
  it.each(policyNames)("by %s is the package's, beside the placement before", (policy) => {
    // In order within the nodes: six experts in eight slots of each.
    const rows = exampleLoads.map(() => [0, 1, 2, 3, 4, 5, 0, 1, 6, 7, 8, 9, 10, 11, 6, 7]);
    const values = { ...exampleValues, policy, before: "file" };
    const result = place(placeRequest(values, example, { name: "old.json", rows }));
    const from = placementFrom(rows, 12);
    const expected = rebalanceExperts(exampleLoads, { ...cluster, policy, from });
    expect(result.after.phy2log).toEqual(expected.phy2log);
    expect(result.after.report).toEqual(expected.report);
    expect(result.before.report).toEqual(measurePlacement(exampleLoads, from, cluster));
    expect(result.elapsedMs).toBeGreaterThanOrEqual(0);
  });

  it("starts from what is chosen", () => {
    const original = rebalanceExperts(exampleLoads, cluster);
    const by = (before: string, old?: readonly (readonly number[])[]) =>
      place(
        placeRequest(
          { ...exampleValues, before },
          example,
          old === undefined ? null : { name: "old.json", rows: old },
        ),
      );
    expect(by("deepseek").before.phy2log).toEqual(original.phy2log);
    expect(by("deepseek").after.report.movedSlots).toBe(0);
    const old = rowsOf(original.phy2log, 2).map((row) => row.toReversed());
    expect(by("file", old).before.phy2log).toEqual(Int32Array.from(old.flat()));
    expect(by("in-order").before.phy2log.subarray(10, 16)).toEqual(
      Int32Array.from([10, 11, 0, 1, 2, 3]),
    );
    expect(() => by("file")).toThrow("from is missing; expected a placement");
    expect(() => by("none")).toThrow("numGpus is 8; expected a divisor of the 12 experts");
  });

  it("without redundancy before is measured on the slots it has", () => {
    const values = { ...small, before: "none", policy: "minimal-migration" };
    const result = place(placeRequest(values, null, null));
    expect(result.before.numReplicas).toBe(24);
    expect(rowsOf(result.before.phy2log, 3)[1]).toEqual(Array.from({ length: 24 }, (_, i) => i));
    // Every redundant slot was empty, so at least those get weights.
    expect(result.after.report.movedSlots).toBeGreaterThanOrEqual(
      3 * 8 - result.after.report.duplicates,
    );
    expect(
      place(placeRequest({ ...values, policy: "optimized" }, null, null)).moved,
    ).toBeUndefined();
    const held = JSON.parse(beforeJson(result)).phy2log[0];
    expect(held.slice(0, 8)).toEqual([0, 1, 2, -1, 3, 4, 5, -1]);
  });

  it("keeps to the target and the budget of a migration", () => {
    const values = {
      ...small,
      policy: "minimal-migration",
      before: "drifted",
      drift: "30",
      budget: "5",
    };
    const { after } = place(placeRequest(values, null, null));
    expect(after.report.movedSlots).toBeLessThanOrEqual(5);
    expect(() => place(placeRequest({ ...values, target: "0.5" }, null, null))).toThrow(
      "targetMaxOverMean is 0.5; expected a number of at least 1",
    );
  });

  it("moves little after a small drift, where a fresh run moves nearly all", () => {
    const values = { ...defaults, layers: "4", before: "drifted", groups: "1", nodes: "1" };
    const fresh = place(placeRequest(values, null, null)).after.report;
    const policy = "minimal-migration";
    const request = placeRequest({ ...values, policy }, null, null);
    const migrated = place(request).after.report;
    expect(fresh.movedShare).toBeGreaterThan(0.8);
    expect(migrated.movedShare).toBeLessThanOrEqual(0.12);
    expect(migrated.worstMaxOverMean).toBeLessThanOrEqual(1.01);
    expect(place(request).before.phy2log).toEqual(place(request).before.phy2log);
    const [row = []] = earlierLoads([[100, 200, 300]], 0.05, 1);
    row.forEach((load, i) => {
      expect(Math.abs(load / (100 * (i + 1)) - 1)).toBeLessThanOrEqual(0.05);
    });
    expect(() => place({ ...request, drift: 1 })).toThrow(
      "drift is 100 %; expected 0 % to below 100 %",
    );
  });

  it("counts as moved what the report counts", () => {
    const seed = testSeed();
    const source = seededRandom(seed);
    const random = (): number => source.next();
    for (let round = 0; round < 100; round++) {
      const perGpu = 1 + Math.floor(random() * 5);
      const gpus = 1 + Math.floor(random() * 6);
      const numLogical = 1 + Math.floor(random() * perGpu * gpus);
      const shape = { numReplicas: perGpu * gpus, numGroups: 1, numNodes: 1, numGpus: gpus };
      const draw = () => {
        const row = Array.from({ length: perGpu * gpus }, (_, slot) =>
          slot < numLogical ? slot : Math.floor(random() * numLogical),
        );
        for (let i = row.length - 1; i > 0; i--) {
          const j = Math.floor(random() * (i + 1));
          [row[i], row[j]] = [row[j] as number, row[i] as number];
        }
        return placementFrom([row], numLogical);
      };
      const [from, to] = [draw(), draw()];
      const weight = [Array.from({ length: numLogical }, () => random())];
      const expected = measurePlacement(weight, to, shape, { from }).movedSlots;
      const sum = (moved: Uint8Array): number => moved.reduce((a, b) => a + b, 0);
      const note = `seed ${seed}, round ${round}`;
      expect(sum(movedSlotsOf(from.phy2log, to.phy2log, perGpu)), note).toBe(expected);
      const aligned = alignSlots(from, to, shape).phy2log;
      expect(sum(movedSlotsOf(from.phy2log, aligned, perGpu)), note).toBe(expected);
    }
  });

  it("tells the slots of a GPU", () => {
    const result = place(placeRequest(exampleValues, example, null));
    const loads = Array.from({ length: 8 }, (_, gpu) =>
      slotsOfGpu(result, "after", 0, gpu).reduce((sum, { load }) => sum + load, 0),
    );
    loads.forEach((load, gpu) => {
      expect(load).toBeCloseTo(result.after.report.layers[0]?.gpuLoads[gpu] as number, 9);
    });
    const [first] = slotsOfGpu(result, "after", 0, 0);
    expect(first).toMatchObject({ slot: 0, expert: 5, replicas: 2, load: 165 / 2 });
  });

  it("passes the package's sentences on", () => {
    const failure = (values: Partial<ExpertsValues>) => {
      try {
        place(placeRequest({ ...small, ...values }, null, null));
      } catch (error) {
        return failureOf(error);
      }
      return undefined;
    };
    expect(failure({ replicas: "33" })).toEqual({
      kind: "failed",
      parameter: "numReplicas",
      message: "numReplicas is 33; expected a multiple of numGpus 8 (33 % 8 = 1)",
    });
    expect(failure({ gpus: "" })?.message).toBe(
      "numGpus is NaN; expected an integer of at least 1",
    );
    expect(fieldOf(failure({ nodes: "3", policy: "deepseek-hierarchical" })?.parameter ?? "")).toBe(
      "groups",
    );
    expect(fieldOf(failure({ skew: "-1" })?.parameter ?? "")).toBe("skew");
    expect(fieldOf(failure({ layers: "0" })?.parameter ?? "")).toBe("layers");
    expect(fieldOf(failure({ experts: "99999999" })?.parameter ?? "")).toBe("experts");
    expect(fieldOf("weight[3][17]")).toBeUndefined();
    expect(fieldOf("from.numLayers")).toBe("before");
  });
});

describe("made-up loads", () => {
  it("follow the seed", () => {
    const { loads } = placeRequest(small, null, null);
    expect(loadsOf(loads)).toEqual(loadsOf(loads));
    const other = placeRequest({ ...small, seed: "2" }, null, null).loads;
    expect(loadsOf(other)).not.toEqual(loadsOf(loads));
    const flat = loadsOf(placeRequest({ ...small, popularity: "uniform" }, null, null).loads);
    expect(new Set(flat.flat()).size).toBe(1);
  });

  it("run through the controller as the package does", () => {
    const request = onlineRequest({ ...small, onlineLayers: "2", steps: "120", interval: "20" });
    const result = replay(request);
    expect(result.windows).toHaveLength(40);
    expect(result.fixed.movedSlots).toBe(0);
    expect(result.controller.maxOverMean).toBeLessThan(result.fixed.maxOverMean);
    expect(() => replay(onlineRequest({ ...small, steps: "100000000" }))).toThrow(
      /numSteps is .*at most/,
    );
    expect(() => replay(onlineRequest({ ...small, interval: "0" }))).toThrow("0");
  });
});

describe("what is taken along", () => {
  it("is the command's JSON, which the page reads again", () => {
    const result = place(placeRequest(exampleValues, example, null));
    const json = JSON.parse(resultJson(result));
    expect(Object.keys(json)).toEqual([
      "policy",
      "numLayers",
      "numLogical",
      "numReplicas",
      "numGroups",
      "numNodes",
      "numGpus",
      "phy2log",
      "log2phy",
      "logcnt",
      "report",
      "before",
    ]);
    expect(json.phy2log[0]).toEqual([5, 6, 5, 7, 8, 4, 3, 4, 10, 9, 10, 2, 0, 1, 11, 1]);
    expect(readContent("x", resultJson(result)).placement).toEqual({
      phy2log: json.phy2log,
      ...cluster,
    });
    expect(readContent("x", loadsJson(result)).loads).toEqual(exampleLoads);
    expect(JSON.parse(beforeJson(result)).phy2log[1]).toEqual(
      [...Array(16).keys()].map((i) => i % 12),
    );
  });

  it("is the command itself", () => {
    const values = { ...exampleValues, policy: "minimal-migration", target: "1.1", budget: "7" };
    const request = placeRequest(values, example, null);
    expect(rebalanceCommand(request, { loads: "my loads.json", old: "before.json" })).toBe(
      "open-infra eplb rebalance --file 'my loads.json' --num-replicas 16 --num-groups 4 " +
        "--num-nodes 2 --num-gpus 8 --policy minimal-migration --from before.json " +
        "--target 1.1 --max-moved-slots 7 --json",
    );
    const fresh = placeRequest({ ...exampleValues, before: "none" }, example, null);
    expect(rebalanceCommand(fresh, { loads: "w.json", old: "b.json" })).not.toContain("--from");
    expect(simulateCommand(onlineRequest({ ...defaults, stepBudget: "" }))).toBe(
      "open-infra eplb simulate --scenario drift --popularity lognormal --skew 1 --seed 1 " +
        "--num-layers 4 --num-logical 256 --num-steps 2000 --num-replicas 288 --num-groups 8 " +
        "--num-nodes 4 --num-gpus 32 --policy minimal-migration --interval 200",
    );
  });

  it("has a sentence for every policy and scenario", () => {
    for (const name of policyNames) expect(policyTexts[name]).toMatch(/\.$/);
    for (const name of scenarios) expect(scenarioTexts[name]).toMatch(/\.$/);
  });
});

describe("the heat map", () => {
  it("has one scale around the mean", () => {
    expect(scaleEnd(2.44)).toBe(2.5);
    expect(scaleEnd(1.02)).toBe(1.05);
    expect(scaleEnd(100)).toBe(128);
    expect(placeOf(1, 3)).toBe(0);
    expect(placeOf(3, 3)).toBeCloseTo(1, 12);
    expect(placeOf(1 / 3, 3)).toBeCloseTo(-1, 12);
    expect(placeOf(0, 3)).toBe(-1);
    expect(placeOf(50, 3)).toBe(1);
    expect(legendRatios(4)).toEqual([0.25, 0.5, 1, 2, 4]);
    const colors = {
      low: [0, 0, 200],
      middle: [250, 250, 250],
      high: [250, 150, 0],
      top: [200, 0, 0],
    } as const;
    expect(heatColor(0, colors)).toEqual([250, 250, 250]);
    expect(heatColor(-1, colors)).toEqual([0, 0, 200]);
    expect(heatColor(0.5, colors)).toEqual([250, 150, 0]);
    expect(heatColor(1, colors)).toEqual([200, 0, 0]);
  });

  it("finds the cell that lies under a point", () => {
    const seed = testSeed();
    const source = seededRandom(seed);
    const random = (): number => source.next();
    for (let round = 0; round < 200; round++) {
      const numNodes = 1 + Math.floor(random() * 6);
      const numGpus = numNodes * (1 + Math.floor(random() * 8));
      const numLayers = 1 + Math.floor(random() * 70);
      const layout = heatLayout(300 + random() * 900, 1, { numGpus, numNodes }, numLayers);
      const gpu = Math.floor(random() * numGpus);
      const layer = Math.floor(random() * numLayers);
      const x = columnLeft(layout, gpu) + layout.columnWidth / 2;
      const y = layout.top + (layer + 0.5) * layout.rowHeight;
      expect(cellAt(layout, x, y), `seed ${seed}, round ${round}`).toEqual({ layer, gpu });
    }
    const layout = heatLayout(400, 1, { numGpus: 4, numNodes: 1 }, 2);
    expect(cellAt(layout, 3, 30)).toBeNull();
    expect(cellAt(layout, 100, heatHeight(2) + 40)).toBeNull();
  });

  it("is walked with the arrow keys", () => {
    const size = { numGpus: 4, numLayers: 3 };
    expect(cellBeside(null, "ArrowDown", size, 2)).toEqual({ layer: 2, gpu: 0 });
    expect(cellBeside({ layer: 1, gpu: 1 }, "ArrowRight", size, 0)).toEqual({ layer: 1, gpu: 2 });
    expect(cellBeside({ layer: 0, gpu: 3 }, "ArrowRight", size, 0)).toEqual({ layer: 0, gpu: 3 });
    expect(cellBeside({ layer: 1, gpu: 2 }, "Home", size, 0)).toEqual({ layer: 1, gpu: 0 });
    expect(cellBeside({ layer: 1, gpu: 2 }, "x", size, 0)).toBeUndefined();
  });

  it("has round ticks beside its chart", () => {
    expect(ratioTicks(1, 2.6)).toEqual([1, 1.5, 2, 2.5]);
    expect(ratioTicks(1, 1.08)).toEqual([1, 1.05].map((tick) => expect.closeTo(tick, 9)));
  });
});

/** A worker whose answers the test gives. */
class FakeWorker {
  static made: FakeWorker[] = [];
  onmessage: ((event: { data: unknown }) => void) | null = null;
  onerror: ((event: { message: string; preventDefault: () => void }) => void) | null = null;
  readonly asked: unknown[] = [];
  ended = false;

  constructor() {
    FakeWorker.made.push(this);
  }
  postMessage(request: unknown): void {
    this.asked.push(request);
  }
  terminate(): void {
    this.ended = true;
  }
}

describe("the worker that answers the newest question", () => {
  const start = () => {
    FakeWorker.made = [];
    const replies: WorkerReply<string>[] = [];
    const busy: boolean[] = [];
    const newest = new NewestWorker<string, string>({
      create: () => new FakeWorker() as unknown as WorkerLike,
      onReply: (reply) => replies.push(reply),
      onBusy: (now) => busy.push(now),
    });
    return { newest, replies, busy };
  };
  const done = (result: string) => ({ data: { kind: "done", result } });

  it("lets one wait, and tells only the last answer", () => {
    const { newest, replies, busy } = start();
    for (const question of ["a", "b", "c"]) newest.ask(question);
    const [worker] = FakeWorker.made;
    expect(worker?.asked).toEqual(["a"]);
    worker?.onmessage?.(done("A"));
    expect(worker?.asked).toEqual(["a", "c"]);
    expect(replies).toEqual([]);
    worker?.onmessage?.(done("C"));
    expect(replies).toEqual([{ kind: "done", result: "C" }]);
    expect(busy.at(-1)).toBe(false);
    expect(FakeWorker.made).toHaveLength(1);
  });

  it("ends work that nobody wants any more", () => {
    vi.useFakeTimers();
    try {
      const { newest, replies } = start();
      newest.ask("slow");
      newest.ask("new");
      vi.advanceTimersByTime(1000);
      const [first, second] = FakeWorker.made;
      expect(first?.ended).toBe(true);
      expect(second?.asked).toEqual(["new"]);
      second?.onmessage?.(done("NEW"));
      expect(replies).toEqual([{ kind: "done", result: "NEW" }]);
    } finally {
      vi.useRealTimers();
    }
  });

  it("says so when its code cannot run, and starts anew", () => {
    const { newest, replies } = start();
    newest.ask("a");
    FakeWorker.made[0]?.onerror?.({ message: "no such file", preventDefault: () => undefined });
    expect(replies).toEqual([{ kind: "failed", parameter: "", message: "no such file" }]);
    newest.ask("b");
    expect(FakeWorker.made[1]?.asked).toEqual(["b"]);
    newest.dispose();
    expect(FakeWorker.made[1]?.ended).toBe(true);
  });
});
