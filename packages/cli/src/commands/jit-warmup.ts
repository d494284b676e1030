// `open-infra jit warmup`: compiles ahead every kernel that a model's steps launch.

import { createDevice, type WarmupProgress } from "@open-infra/jit";
import { type ComputeDType, loadModel } from "@open-infra/model";
import { type CliContext, printJson, printLine } from "../context.ts";
import { modelDir } from "../model-dir.ts";
import { createProgress } from "../progress.ts";

interface Flags {
  readonly model?: string;
  readonly dtype: ComputeDType;
  readonly threads?: number;
  readonly json: boolean;
}

export default async function warmup(this: CliContext, flags: Flags): Promise<void> {
  using progress = createProgress(this);
  using device = createDevice({ backend: "cpu", ...(flags.threads && { threads: flags.threads }) });
  using model = await loadModel(modelDir(flags.model), { device, dtype: flags.dtype });
  let last: WarmupProgress | undefined;
  const start = performance.now();
  await model.warmup({
    onProgress: (now) => {
      last = now;
      progress.update("compiling", now.done, now.total);
    },
  });
  const seconds = (performance.now() - start) / 1000;
  const kernels = last?.total ?? 0;
  const compiled = last?.compiled ?? 0;
  if (flags.json) printJson(this, { kernels, compiled, seconds });
  else
    printLine(this, `${kernels} kernels ready, ${compiled} compiled now, ${seconds.toFixed(1)} s`);
}
