// A slice of the soak: one batch.

import { testSeed } from "@open-infra/testing";
import { it } from "vitest";
import { soak } from "./layouts.soak.ts";

it("a batch of random layouts", async () => {
  await soak({ seed: testSeed(), minutes: 0, log: () => {} });
});
