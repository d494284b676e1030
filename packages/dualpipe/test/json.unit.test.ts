// Schedules as JSON and as text: nothing is lost on the way there and back, and a document from a
// stranger is refused with the field that is wrong.

import { InputError } from "@open-infra/errors";
import { seededRandom, testSeed } from "@open-infra/testing";
import { describe, expect, it } from "vitest";
import {
  buildSchedule,
  builtInNames,
  dualPipe,
  formatRank,
  formatSchedule,
  oneFOneB,
  scheduleFromJson,
  scheduleJsonText,
  scheduleToJson,
  validateSchedule,
  withCommunication,
  zbv,
} from "../src/index.ts";

const seed = testSeed();

describe("JSON", () => {
  it("goes there and back", () => {
    for (const name of builtInNames) {
      const alone = buildSchedule(name, { numRanks: 4, numMicroBatches: 8 });
      for (const schedule of [alone, withCommunication(alone)]) {
        const text = JSON.stringify(scheduleToJson(schedule));
        expect(scheduleFromJson(JSON.parse(text)), name).toEqual(schedule);
        const pieces = [...scheduleJsonText(schedule, { more: [1] })].join("");
        expect(JSON.parse(pieces), name).toEqual({ ...JSON.parse(text), more: [1] });
      }
    }
  });

  const small = (): Record<string, unknown> =>
    JSON.parse(JSON.stringify(scheduleToJson(dualPipe({ numRanks: 2, numMicroBatches: 4 }))));

  it("writes operations as the published lists do", () => {
    expect(small().ops).toEqual([
      [
        ["F", [0, 0], 0],
        ["F", [1, 1], 0],
        ["F", [0, 0], 1],
        ["B", [1, 1], 0],
        ["FB", [1, 1], 1, [0, 0], 0],
        ["B", [1, 1], 1],
        ["I", [0, 0], 1],
        ["W", [0, 0], 1],
      ],
      [
        ["F", [1, 0], 0],
        ["F", [0, 1], 0],
        ["F", [1, 0], 1],
        ["B", [0, 1], 0],
        ["FB", [0, 1], 1, [1, 0], 0],
        ["B", [0, 1], 1],
        ["I", [1, 0], 1],
        ["W", [1, 0], 1],
      ],
    ]);
  });

  const put = (path: readonly (string | number)[], value: unknown): unknown => {
    const document = small();
    let inner = document as Record<string | number, unknown>;
    for (const key of path.slice(0, -1)) inner = inner[key] as Record<string | number, unknown>;
    inner[path.at(-1) as string] = value;
    return document;
  };

  it.each<[string, unknown, RegExp]>([
    ["no object", null, /schedule is null; expected an object/],
    ["an array", [], /schedule is \[\]/],
    ["another format", put(["format"], "x"), /format is "x"/],
    ["another version", put(["version"], 2), /version is 2/],
    ["no known name", put(["name"], "__proto__"), /name is "__proto__"/],
    ["no ranks", put(["numRanks"], 0), /numRanks is 0/],
    ["ranks as text", put(["numRanks"], "2"), /numRanks is "2"/],
    ["too many stages", put(["numStages"], 1e9), /numStages is 1000000000/],
    ["three directions", put(["microBatchesOf"], [1, 1, 1]), /microBatchesOf.length is 3/],
    ["endless micro-batches", put(["microBatchesOf"], [2, 1e12]), /microBatchesOf\[1\] is 1000/],
    ["too few rows of ranks", put(["rankOf"], [[0, 1]]), /rankOf is an array of 1; expected 2/],
    ["an unknown rank", put(["rankOf", 0, 1], 2), /rankOf\[0\]\[1\] is 2/],
    ["too few lists", put(["ops"], [[]]), /ops is an array of 1; expected 2 entries/],
    ["no list", put(["ops", 1], "F"), /ops\[1\] is "F"; expected an array/],
    ["an unknown kind", put(["ops", 0, 0, 0], "toString"), /ops\[0\]\[0\]\[0\] is "toString"/],
    ["half a pair", put(["ops", 0, 4], ["FB", [1, 1], 1]), /ops\[0\]\[4\] is an array of 3/],
    ["a stage too high", put(["ops", 0, 0, 1], [0, 2]), /ops\[0\]\[0\]\[1\]\[1\] is 2/],
    ["a negative micro-batch", put(["ops", 0, 0, 2], -1), /ops\[0\]\[0\]\[2\] is -1/],
    ["half a micro-batch", put(["ops", 0, 0, 2], 0.5), /ops\[0\]\[0\]\[2\] is 0.5/],
    ["phases too short", put(["phases", 0], [[1, 2]]), /phases\[0\] is 2 operations; .* 8/],
    ["phases too long", put(["phases", 0], [[1, 9]]), /phases\[0\]\[0\]\[1\] is 9/],
    ["a wide phase", put(["phases", 0, 0, 0], 256), /phases\[0\]\[0\]\[0\] is 256/],
    ["a flag as number", put(["hasCommunication"], 1), /hasCommunication is 1/],
  ])("refuses %s", (_, document, message) => {
    expect(() => scheduleFromJson(document)).toThrow(InputError);
    expect(() => scheduleFromJson(document)).toThrow(message);
  });

  it("never fails in another way, and what it takes can be validated", () => {
    const random = seededRandom(seed);
    const values = [null, -1, 0, 1, 2, 1e9, 0.5, "F", "FB", "W", [], [0, 0], {}, true];
    for (let n = 0; n < 500; n++) {
      const document = small();
      let inner = document as Record<string, unknown>;
      for (;;) {
        const key = random.pick(Object.keys(inner));
        const next = inner[key];
        if (typeof next !== "object" || next === null || Object.keys(next).length === 0) {
          inner[key] = random.pick(values);
          break;
        }
        if (random.next() < 0.2) {
          inner[key] = random.pick(values);
          break;
        }
        inner = next as Record<string, unknown>;
      }
      const label = `seed ${seed}, case ${n}: ${JSON.stringify(document)}`;
      try {
        validateSchedule(scheduleFromJson(document));
      } catch (error) {
        expect(error, label).toBeInstanceOf(InputError);
      }
    }
  });
});

describe("text", () => {
  it("writes stages for one direction and arrows for two", () => {
    const plain = withCommunication(oneFOneB({ numRanks: 2, numMicroBatches: 2 }));
    expect(formatSchedule(plain)).toBe(
      "0F0 0SEND_F0 0F1 0SEND_F1 0RECV_B0 0B0 0RECV_B1 0B1\n" +
        "1RECV_F0 1F0 1RECV_F1 1B0 1SEND_B0 1F1 1B1 1SEND_B1",
    );
    const two = dualPipe({ numRanks: 2, numMicroBatches: 4 });
    expect(formatRank(two, 1)).toBe("<F0 >F0 <F1 >B0 (>F1|<B0) >B1 <I1 <W1");
    expect(formatRank(zbv({ numRanks: 1, numMicroBatches: 1 }), 0)).toBe("0F0 1F0 1I0 1W0 0I0 0W0");
    expect(formatRank(two, 2)).toBe("");
  });
});
