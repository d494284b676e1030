// Taking a port, with errors that say what to do, and the address a person visits. What answers
// there is the caller's.

import type { Server } from "node:http";
import { ListenError, PortInUseError } from "./errors.ts";

/** @throws PortInUseError, ListenError */
export async function listen(server: Server, host: string, port: number): Promise<void> {
  try {
    await new Promise<void>((resolve, reject) => {
      server.once("error", reject);
      server.listen(port, host, () => {
        server.off("error", reject);
        resolve();
      });
    });
  } catch (cause) {
    const { code, message } = cause as NodeJS.ErrnoException;
    if (code === "EADDRINUSE") throw new PortInUseError(host, port, { cause });
    const reasons: Readonly<Record<string, string>> = {
      EACCES: "ports below 1024 need privileges; choose a higher one",
      EADDRNOTAVAIL: "this machine does not have that address",
      ENOTFOUND: "the name is not known",
    };
    throw new ListenError(host, port, reasons[code ?? ""] ?? message, { cause });
  }
}

/** For people and clients: `http://127.0.0.1:8000`. */
export function visitUrl(host: string, port: number): string {
  // A wildcard address cannot be visited.
  const name = host === "0.0.0.0" || host === "::" ? "localhost" : host;
  return `http://${name.includes(":") ? `[${name}]` : name}:${port}`;
}
