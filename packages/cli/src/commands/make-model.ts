// `open-infra make-model`: a checkpoint with random weights.

import { modelPresets, writeRandomModel } from "@open-infra/model";
import { type CliContext, note, printJson, printLine } from "../context.ts";
import { UsageError } from "../parse.ts";
import { createProgress, formatBytes } from "../progress.ts";

interface Flags {
  readonly preset: string;
  readonly seed: number;
  readonly dtype?: "bf16" | "fp8" | "f32";
  readonly list: boolean;
  readonly json: boolean;
}

export default async function makeModel(
  this: CliContext,
  flags: Flags,
  dir?: string,
): Promise<void> {
  if (flags.list) {
    if (flags.json) printJson(this, modelPresets);
    else
      for (const [name, preset] of Object.entries(modelPresets))
        printLine(this, `${name.padEnd(14)} ${preset.brief}`);
    return;
  }
  if (dir === undefined)
    throw new UsageError("name the folder to write: open-infra make-model --preset tiny DIR");
  using progress = createProgress(this, {
    format: (_phase, done, total) => `${formatBytes(done)} of ${formatBytes(total)}`,
  });
  const result = await writeRandomModel({
    preset: flags.preset,
    seed: flags.seed,
    dir,
    ...(flags.dtype && { dtype: flags.dtype }),
    onProgress: (done: number, total: number) => progress.update("writing", done, total),
  });
  if (flags.json) printJson(this, { dir, preset: flags.preset, seed: flags.seed, ...result });
  else
    note(
      this,
      `wrote ${dir}: ${(result.parameters / 1e6).toFixed(1)} M parameters, ` +
        formatBytes(result.bytes),
    );
}
