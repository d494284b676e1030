// A slice of the soak: one batch.

import { testSeed } from "@open-infra/testing";
import { it } from "vitest";
import { lacks } from "../v1/worlds.ts";
import { soak } from "./layouts.soak.ts";

it.skipIf(lacks("random layouts"))("a batch of random layouts", async () => {
  await soak({ seed: testSeed(), minutes: 0, log: () => {} });
});
