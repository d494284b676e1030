// `open-infra serve`: an engine in a worker thread, the HTTP server in front of it, and the signals
// that end both. What they do is theirs; this file only connects them and talks to the operator.

import { basename, resolve } from "node:path";
import { consoleDir } from "@open-infra/console";
import { demoModelDir } from "@open-infra/demo-model";
import { type EngineClient, type EngineOptions, startEngine } from "@open-infra/engine";
import { type ComputeDType, loadTokenizer } from "@open-infra/model";
import { type LoadProgress, type ServerOptions, startServer } from "@open-infra/server";
import { type CliContext, note, printLine } from "../context.ts";
import { modelDir } from "../model-dir.ts";
import { UsageError } from "../parse.ts";
import { createProgress, formatBytes, type Progress } from "../progress.ts";

interface Flags {
  readonly model?: string;
  readonly host: string;
  readonly port: number;
  readonly dtype: ComputeDType;
  readonly backend: "auto" | "cpu" | "reference";
  readonly threads?: number;
  readonly maxModelLen?: number;
  readonly maxSequences: number;
  readonly maxBatchedTokens: number;
  readonly maxQueue: number;
  readonly kvCacheMb?: number;
  readonly servedModelName?: string;
  readonly apiKey?: string;
  readonly corsOrigin?: readonly string[];
  readonly allowedHost?: readonly string[];
  readonly fp8Inputs: "mlp" | "all";
  readonly maxBodyMb: number;
  readonly drainSeconds: number;
  readonly trace?: string;
  readonly logLevel: "silent" | "error" | "warn" | "info" | "debug";
}

const MIB = 2 ** 20;

/** Resolves at the first SIGTERM or SIGINT; a second one ends the process at once. */
function stopSignal(context: CliContext): Promise<"stopped"> {
  return new Promise((resolve) => {
    let asked = false;
    const onSignal = (signal: NodeJS.Signals): void => {
      if (asked) process.exit(signal === "SIGINT" ? 130 : 143);
      asked = true;
      note(context, `${signal}: finishing running requests; once more ends at once`);
      resolve("stopped");
    };
    process.on("SIGTERM", onSignal);
    process.on("SIGINT", onSignal);
  });
}

function engineOptions(
  context: CliContext,
  flags: Flags,
  dir: string,
  progress: Progress,
): EngineOptions {
  return {
    modelDir: dir,
    modelId: flags.servedModelName ?? (dir === demoModelDir ? "demo" : basename(resolve(dir))),
    dtype: flags.dtype,
    fp8Inputs: flags.fp8Inputs,
    backend: flags.backend,
    maxSequences: flags.maxSequences,
    maxBatchedTokens: Math.max(flags.maxBatchedTokens, flags.maxSequences),
    maxQueue: flags.maxQueue,
    ...(flags.threads && { threads: flags.threads }),
    ...(flags.maxModelLen && { maxModelLen: flags.maxModelLen }),
    ...(flags.kvCacheMb && { kvCacheBytes: flags.kvCacheMb * MIB }),
    ...(flags.trace && { tracePath: flags.trace }),
    onProgress: (phase, done, total) => progress.update(phase, done, total),
    onLog: (line) => note(context, line),
  };
}

function serverOptions(
  context: CliContext,
  flags: Flags,
  load: () => LoadProgress | undefined,
): ServerOptions {
  const apiKey = flags.apiKey ?? context.process.env.OPEN_INFRA_API_KEY;
  return {
    ...(apiKey && { apiKey }),
    corsOrigins: flags.corsOrigin ?? [],
    allowedHosts: flags.allowedHost ?? [],
    maxBodyBytes: Math.round(flags.maxBodyMb * MIB),
    drainTimeoutMs: flags.drainSeconds * 1000,
    console: consoleDir,
    loadProgress: load,
    logLevel: flags.logLevel,
  };
}

export default async function serve(this: CliContext, flags: Flags, named?: string): Promise<void> {
  if (flags.model !== undefined && named !== undefined) {
    throw new UsageError("name the model once: either serve DIR or serve --model DIR");
  }
  const dir = modelDir(flags.model ?? named);
  const stop = stopSignal(this);
  // Cheap to load and certain to be needed: a folder without one fails before the weights are read.
  const tokenizer = loadTokenizer(dir);
  let load: LoadProgress | undefined;
  using bar = createProgress(this, { format: formatLoad });
  const progress: Progress = {
    update: (phase, done, total) => {
      load = { phase, done, total };
      bar.update(phase, done, total);
    },
    [Symbol.dispose]: () => {},
  };
  // The port is taken first, so that a conflict shows at once and /health answers while loading.
  const engine = Promise.withResolvers<EngineClient>();
  engine.promise.catch(() => {});
  const options = serverOptions(this, flags, () => load);
  await using server = await startServer({
    engine: engine.promise,
    tokenizer,
    options,
    host: flags.host,
    port: flags.port,
  });
  const loading = new AbortController();
  void stop.then(() => loading.abort(new Error("stopped while loading")));
  startEngine({ ...engineOptions(this, flags, dir, progress), signal: loading.signal }).then(
    engine.resolve,
    engine.reject,
  );
  try {
    const started = await engine.promise;
    await server.ready;
    announce(this, server.url, started);
    const ended = await Promise.race([stop, started.failed]);
    await server.close();
    await started.close();
    if (ended !== "stopped") throw ended;
  } catch (error) {
    if (!loading.signal.aborted) throw error;
  } finally {
    if (flags.trace) note(this, `trace: ${flags.trace}`);
  }
}

function formatLoad(phase: string, done: number, total: number): string {
  return phase === "weights" ? `${formatBytes(done)} of ${formatBytes(total)}` : `${done}/${total}`;
}

function announce(context: CliContext, url: string, engine: EngineClient): void {
  const { model } = engine;
  const files = consoleDir();
  note(
    context,
    `${model.id}: ${(model.parameters / 1e6).toFixed(1)} M parameters, ${model.dtype}, ` +
      `context ${model.maxModelLen}, ${model.device}`,
  );
  if ("missing" in files) note(context, files.missing);
  printLine(context, `ready on ${url} (API under /v1, console at /)`);
}
