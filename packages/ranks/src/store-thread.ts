// A store's server on a thread of its own: rank 0 may hold the dictionary and block in a native
// wait at the same time.

import { parentPort, workerData } from "node:worker_threads";
import { serializeError } from "@open-infra/errors";
import { type StoreServerOptions, TcpStoreServer } from "./tcp-store-server.ts";

const port = parentPort as NonNullable<typeof parentPort>;

TcpStoreServer.listen(workerData as StoreServerOptions).then(
  (server) => port.postMessage({ port: server.port }),
  (error) => port.postMessage({ error: serializeError(error) }),
);
