// The README's table of formulas beside simulations is what the code gives.

import { readFileSync } from "node:fs";
import { expect, it } from "vitest";
import { formulaTable } from "../bench/formula-table.ts";

it("the README's formulas and simulations are today's", () => {
  const readme = readFileSync(new URL("../README.md", import.meta.url), "utf8");
  const block = /<!-- formulas:begin -->\n(.*?)<!-- formulas:end -->/s.exec(readme)?.[1];
  expect(block?.trim().split("\n")).toEqual(formulaTable());
});
