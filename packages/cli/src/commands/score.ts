// `open-infra score`: logits and log-probabilities of given tokens, for checks against other code.

import { readFileSync } from "node:fs";
import { createDevice } from "@open-infra/jit";
import { type ComputeDType, loadModel, scoreTokens } from "@open-infra/model";
import type { CliContext } from "../context.ts";
import { modelDir } from "../model-dir.ts";
import { UsageError } from "../parse.ts";
import { createProgress, formatBytes } from "../progress.ts";

interface Flags {
  readonly model?: string;
  readonly tokens?: readonly number[];
  readonly tokensFile?: string;
  readonly dtype: ComputeDType;
  readonly fp8Inputs: "mlp" | "all";
  readonly backend: "auto" | "cpu" | "reference";
  readonly threads?: number;
}

function readTokens(flags: Flags): readonly number[] {
  if ((flags.tokens === undefined) === (flags.tokensFile === undefined)) {
    throw new UsageError("give the tokens either as --tokens 0,17,5 or as --tokens-file FILE");
  }
  if (flags.tokens !== undefined) return flags.tokens;
  const file = flags.tokensFile as string;
  let parsed: unknown;
  try {
    parsed = JSON.parse(readFileSync(file, "utf8"));
  } catch (error) {
    throw new UsageError(`cannot read ${file} as JSON: ${(error as Error).message}`);
  }
  if (
    !Array.isArray(parsed) ||
    parsed.length === 0 ||
    !parsed.every((id) => Number.isInteger(id))
  ) {
    throw new UsageError(`${file} must hold a JSON array of token ids, e.g. [0, 17, 5]`);
  }
  return parsed as number[];
}

export default async function score(this: CliContext, flags: Flags): Promise<void> {
  const tokens = readTokens(flags);
  using progress = createProgress(this, {
    format: (_phase, done, total) => `${formatBytes(done)} of ${formatBytes(total)}`,
  });
  using device = createDevice({
    backend: flags.backend,
    ...(flags.threads && { threads: flags.threads }),
  });
  using model = await loadModel(modelDir(flags.model), {
    device,
    dtype: flags.dtype,
    fp8Inputs: flags.fp8Inputs,
    onProgress: (done, total) => progress.update("loading", done, total),
  });
  const result = scoreTokens(model, tokens);
  this.process.stdout.write(`${JSON.stringify(result)}\n`);
}
