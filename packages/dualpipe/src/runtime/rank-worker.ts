// The thread of one rank. It loads the user's stages, then does what the host asks, one request
// after another. When a step fails it says why, and waits to be ended.

import { parentPort, workerData } from "node:worker_threads";
import { InputError, serializeError } from "@open-infra/errors";
import { nullRecorder, TraceRecorder } from "@open-infra/profile";
import { StageError } from "./errors.ts";
import type { RankProgram } from "./program.ts";
import type {
  CallRequest,
  FromRank,
  RankRequest,
  RankStart,
  StepReply,
  StepRequest,
  ToRank,
  TraceReply,
} from "./protocol.ts";
import { PipelineRunner, type PlacedStage } from "./runner.ts";
import type { Criterion, Stage } from "./stage.ts";
import { syncGradients } from "./sync-gradients.ts";
import { packValue, shareBatches, unpackValue, unshareBatches } from "./values.ts";
import { WorkerTransport } from "./worker-transport.ts";

if (parentPort === null) throw new Error("rank-worker.ts runs as a worker thread only");
const port = parentPort;
const start = workerData as RankStart;

const post = (message: FromRank): void => port.postMessage(message);

/** The user's module; one that is not there is the caller's mistake, not the module's. */
async function importStages(stageModule: string): Promise<Record<string, unknown>> {
  try {
    return (await import(stageModule)) as Record<string, unknown>;
  } catch (error) {
    const { code, url } = error as { readonly code?: unknown; readonly url?: unknown };
    if (code !== "ERR_MODULE_NOT_FOUND" || url !== stageModule) throw error;
    throw new InputError("stageModule", `${stageModule}, absent`, "a module", { cause: error });
  }
}

/** The stages and the criterion of the user's module. */
async function load(): Promise<{ stages: PlacedStage[]; criterion: Criterion | undefined }> {
  const { seat, stageModule, stageExport, criterionExport, numStages } = start;
  const module = await importStages(stageModule);
  const has = `one of its exports: ${Object.keys(module).join(", ") || "none"}`;
  const create = module[stageExport];
  if (typeof create !== "function") {
    const got = `'${stageExport}', ${create === undefined ? "absent" : typeof create}`;
    throw new InputError("stageExport", `${got} in ${stageModule}`, `a function, ${has}`);
  }
  const criterion = criterionExport === undefined ? undefined : module[criterionExport];
  if (criterionExport !== undefined && typeof (criterion as Criterion)?.forward !== "function") {
    const got = `'${criterionExport}', ${criterion === undefined ? "absent" : "without forward"}`;
    throw new InputError("criterionExport", `${got} in ${stageModule}`, `a Criterion, ${has}`);
  }
  const stages: PlacedStage[] = [];
  for (const { direction, stage } of start.stages) {
    try {
      const place = { rank: seat.rank, direction, stage, numStages };
      // Each copy gets options of its own, so that one cannot change what another sees.
      const model = (await create(
        unpackValue(structuredClone(start.stageOptions)),
        place,
      )) as Stage;
      if (typeof model?.forward !== "function" || typeof model.backwardInput !== "function") {
        throw new TypeError(`${stageExport} gave no Stage: forward and backwardInput are methods`);
      }
      stages.push({ direction, stage, model });
    } catch (error) {
      throw new StageError(
        { rank: seat.rank, op: "load", direction, stage, microBatch: -1 },
        error,
      );
    }
  }
  return { stages, criterion: criterion as Criterion | undefined };
}

class RankServer {
  readonly #stages: readonly PlacedStage[];
  readonly #criterion: Criterion | undefined;
  readonly #transport: WorkerTransport;
  readonly #recorder: TraceRecorder | undefined;
  readonly #runner: PipelineRunner;
  readonly #programs = new Map<string, RankProgram>();
  #steps = 0;

  constructor(stages: readonly PlacedStage[], criterion: Criterion | undefined) {
    const { seat, timeoutMs, trace } = start;
    this.#stages = stages;
    this.#criterion = criterion;
    this.#transport = new WorkerTransport(seat);
    const { control } = this.#transport;
    this.#recorder = trace ? new TraceRecorder({ processName: "pipeline" }) : undefined;
    this.#runner = new PipelineRunner({
      transport: this.#transport,
      stages,
      timeoutMs,
      recorder: this.#recorder ?? nullRecorder,
      onOperation: (index) => control.progress(seat.rank, this.#steps, index),
    });
  }

  async answer({ id, request }: ToRank): Promise<void> {
    try {
      post({ type: "reply", id, value: await this.#do(request) });
    } catch (error) {
      const error_ = serializeError(error);
      if (request.type === "call") post({ type: "refused", id, error: error_ });
      else post({ type: "failed", error: error_ });
    }
  }

  #do(request: RankRequest): Promise<unknown> {
    switch (request.type) {
      case "step":
        return this.#step(request);
      case "call":
        return this.#call(request);
      case "sync":
        return syncGradients(this.#runner);
      case "trace":
        return Promise.resolve(this.#trace());
      case "close":
        return this.#close();
      default:
        return request satisfies never;
    }
  }

  async #step(request: StepRequest): Promise<StepReply> {
    const { programKey, inputs, labels, returnOutputs } = request;
    if (request.program !== undefined) this.#programs.set(programKey, request.program);
    const program = this.#programs.get(programKey) as RankProgram;
    this.#steps++;
    const outcome = await this.#runner.run(program, {
      inputs: unshareBatches(inputs),
      labels: unshareBatches(labels),
      criterion: this.#criterion,
      returnOutputs,
    });
    return {
      losses: [...outcome.losses],
      outputs: shareBatches(outcome.outputs),
      stats: outcome.stats,
      messageBufferBytes: this.#transport.allocatedBytes,
    };
  }

  async #call({ method, args, stages }: CallRequest): Promise<unknown[]> {
    const values: unknown[] = [];
    for (const { direction, stage } of stages) {
      const place = {
        rank: start.seat.rank,
        op: `call ${method}`,
        direction,
        stage,
        microBatch: -1,
      };
      const found = this.#stages.find((one) => one.direction === direction && one.stage === stage);
      try {
        const model = found?.model as unknown as Record<string, unknown>;
        const run = model[method];
        if (typeof run !== "function") {
          throw new TypeError(`the stage has no method ${method}`);
        }
        const value: unknown = await run.apply(model, args.map(unpackValue));
        values.push(packValue(`the result of ${method}`, value));
      } catch (error) {
        throw new StageError(place, error);
      }
    }
    return values;
  }

  #trace(): TraceReply {
    return { events: this.#recorder?.events ?? [], dropped: this.#recorder?.dropped ?? 0 };
  }

  /** Lets the stages give back what they hold; the host then ends the thread. */
  async #close(): Promise<void> {
    for (const { model } of this.#stages) {
      const { [Symbol.asyncDispose]: later, [Symbol.dispose]: now } = model as unknown as Partial<
        AsyncDisposable & Disposable
      >;
      if (later !== undefined) await later.call(model);
      else now?.call(model);
    }
  }
}

async function serve(): Promise<void> {
  const { stages, criterion } = await load();
  const server = new RankServer(stages, criterion);
  let last: Promise<void> = Promise.resolve();
  port.on("message", (message: ToRank) => {
    last = last.then(() => server.answer(message));
  });
  post({ type: "ready" });
}

serve().catch((error: unknown) => post({ type: "failed", error: serializeError(error) }));
