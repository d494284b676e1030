import { launchPipeline } from "@open-infra/dualpipe/runtime";
import { Tensor } from "@open-infra/tensor";

await using pipeline = await launchPipeline({
  schedule: "dualpipe",
  numRanks: 4, // worker threads; rank r holds stage r of one direction, 3 − r of the other
  stageModule: import.meta.resolve("@open-infra/dualpipe/runtime"), // or a module of yours
  stageExport: "createMlpStage", // Linear – GELU – Linear
  criterionExport: "mseLoss",
  stageOptions: { features: 8, gain: 2, dtype: "f64" },
});
const wave = Float64Array.from({ length: 64 * 8 }, (_, i) => Math.sin(i));
const x = Tensor.from(wave, [64, 8], "f64");
const y = Tensor.from(wave.toReversed(), [64, 8], "f64");
for (let step = 0; step < 12; step++) {
  const { losses } = await pipeline.step([x], { numChunks: 16, labels: [y] });
  const mean = losses!.reduce((a, b) => a + b) / 16;
  console.log(`loss ${mean.toFixed(3)}`); // loss 0.887 … loss 0.081
  await pipeline.syncGradients(); // of the two copies of each stage
  await pipeline.call("optimizerStep", [0.02]); // a method of the stage, on every copy
}
