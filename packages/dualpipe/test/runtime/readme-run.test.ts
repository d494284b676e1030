// The README's section on running shows the programs in example/, and they do what it says.

import { execFileSync } from "node:child_process";
import { readFileSync } from "node:fs";
import { fileURLToPath } from "node:url";
import { Tensor } from "@open-infra/tensor";
import { expect, it } from "vitest";
import { launchPipeline } from "../../src/runtime/launch.ts";

const example = (file: string): URL => new URL(`../example/${file}`, import.meta.url);
const readme = readFileSync(new URL("../../README.md", import.meta.url), "utf8");

it.each(["train.ts", "stage.ts"])("the README shows %s as it is", (file) => {
  expect(readme).toContain(`\`\`\`ts\n${readFileSync(example(file), "utf8")}\`\`\``);
});

it("the example trains: the loss falls", () => {
  const args = ["--conditions=@open-infra/source", fileURLToPath(example("train.ts"))];
  const lines = execFileSync(process.execPath, args, { encoding: "utf8" }).trim().split("\n");
  const losses = lines.map((line) => Number(/^loss (\d\.\d{3})$/.exec(line)?.[1]));
  expect(losses).toHaveLength(12);
  // Each step lowers it.
  expect(losses).toEqual(losses.toSorted((a, b) => b - a));
  expect(losses.at(-1)).toBeLessThan(0.1);
  expect(readme).toContain(`// ${lines[0]} … ${lines.at(-1)}`);
});

it("the stage of one's own computes w^4 · x over four stages, and its gradient", async () => {
  await using pipeline = await launchPipeline({
    schedule: "zbv",
    numRanks: 2,
    stageModule: example("stage.ts"),
    stageOptions: { w: 2 },
  });
  const x = Tensor.from([1, 2, 3, 4], [4, 1], "f64");
  const options = { numChunks: 4, inference: true, returnOutputs: true };
  const { outputs } = await pipeline.step([x], options);
  expect([...(outputs?.[0]?.toFloat64() ?? [])]).toEqual([16, 32, 48, 64]);
});
