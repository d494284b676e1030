// Random architectures against transformers, generated beforehand by oracle/make_goldens.py.

import { readdirSync } from "node:fs";
import { join } from "node:path";
import { createDevice } from "@open-infra/jit";
import { maxAbsDiff, requirement } from "@open-infra/testing";
import { describe, expect, it } from "vitest";
import { loadModel, scoreTokens } from "../src/index.ts";
import { goldenCases } from "./helpers.ts";

const dir = process.env.OPEN_INFRA_ORACLE_DIR;
const met =
  dir !== undefined ||
  "OPEN_INFRA_ORACLE_DIR is not set; run packages/model/test/oracle/make_goldens.py to make one";

describe.skipIf(requirement("random architectures", met, "optional"))("oracle", () => {
  it.each(dir === undefined ? [] : readdirSync(dir))("%s", async (name) => {
    using device = createDevice();
    using model = await loadModel(join(dir as string, name), { device, dtype: "f32" });
    for (const { prompt, last_logits, token_logprobs } of goldenCases(join(dir as string, name))) {
      const scores = scoreTokens(model, prompt);
      expect(maxAbsDiff(scores.last_logits, last_logits)).toBeLessThan(1e-4);
      expect(maxAbsDiff(scores.token_logprobs, token_logprobs)).toBeLessThan(1e-4);
    }
  });
});
