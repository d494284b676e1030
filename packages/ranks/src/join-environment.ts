// Joins the group that the environment describes: the one line a script needs under any launcher.

import { writeFileSync } from "node:fs";
import { Worker } from "node:worker_threads";
import {
  deserializeError,
  InputError,
  type SerializedError,
  serializeError,
} from "@open-infra/errors";
import { type RankEnvironment, readRankEnvironment } from "./environment.ts";
import { firstThrown } from "./errors.ts";
import type { Group } from "./group.ts";
import type { JoinOptions } from "./group-options.ts";
import { joinGroup } from "./join.ts";
import { endWithParent } from "./parent.ts";
import { sourceArguments } from "./source-module.ts";
import { PortInUseError } from "./tcp-errors.ts";
import { isLoopback } from "./tcp-guard.ts";
import { TcpStore } from "./tcp-store.ts";
import type { StoreServerOptions } from "./tcp-store-server.ts";

/** What a script may say itself; the environment says the rest. */
export type JoinEnvironmentOptions = Partial<Omit<JoinOptions, "rank" | "size" | "store">>;

/**
 * Joins by `RANK`, `WORLD_SIZE`, `MASTER_ADDR`, `MASTER_PORT`, or what mpirun or srun set.
 *
 * @throws RankEnvironmentError, UnreachableError, SecretRefusedError, PortInUseError, and what
 *   {@link joinGroup} throws
 */
export async function joinFromEnvironment(options: JoinEnvironmentOptions = {}): Promise<Group> {
  const env = readRankEnvironment();
  endWithParent(Number(process.env.OPEN_INFRA_LAUNCHER_PID));
  reportErrors();
  const timeoutMs = options.timeoutMs ?? env.timeoutMs ?? 100_000;
  const server = await openServer(env);
  try {
    const { masterHost: host, masterPort: port, secret } = env;
    const store = await TcpStore.connect({ host, port, secret, timeoutMs });
    store.unref();
    const closing = store.close.bind(store);
    store.close = () => {
      closing();
      // The goodbye has to leave before the server goes with this process's other end.
      if (server !== undefined) setTimeout(() => void server.terminate(), 20);
    };
    const { transport = env.transport, linkHost = env.linkHost } = options;
    return await joinGroup({
      ...options,
      ...{ rank: env.rank, size: env.size, store, timeoutMs },
      ...(transport !== undefined && { transport }),
      ...(linkHost !== undefined && { linkHost }),
    });
  } catch (error) {
    await server?.terminate();
    throw error;
  }
}

/** Rank 0 holds the store, unless its launcher does. */
async function openServer(env: RankEnvironment): Promise<Worker | undefined> {
  if (env.rank !== 0 || env.launcherHoldsStore) return undefined;
  const { masterHost, masterPort: port, secret } = env;
  const start: StoreServerOptions = {
    // A name of this host may stand for an address that others cannot reach: listen on all.
    host: isLoopback(masterHost) ? masterHost : "",
    ...{ port, secret },
  };
  const { url, flags } = sourceArguments();
  const worker = new Worker(url("store-thread"), {
    name: "open-infra-store",
    workerData: start,
    ...(flags.length > 0 && { execArgv: flags }),
  });
  const { promise, resolve, reject } = Promise.withResolvers<void>();
  worker.once("message", (message: { port?: number; error?: SerializedError }) => {
    if (message.error === undefined) resolve();
    else reject(deserializeError(message.error, [PortInUseError, InputError]));
  });
  worker.once("error", reject);
  try {
    await promise;
  } catch (error) {
    await worker.terminate();
    throw error;
  }
  worker.unref();
  return worker;
}

let reporting = false;

/** Leaves an uncaught error where the launcher finds it. */
function reportErrors(): void {
  const file = process.env.OPEN_INFRA_ERROR_FILE;
  if (file === undefined || reporting) return;
  reporting = true;
  process.on("uncaughtExceptionMonitor", (error) => {
    try {
      writeFileSync(file, JSON.stringify(serializeError(firstThrown(error))));
    } catch {
      // The launcher still has the exit status and what was printed.
    }
  });
}
