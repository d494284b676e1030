// What can go wrong before ranks have found each other: nobody at the address, somebody else there,
// another secret. Failures of a group that has formed are in errors.ts.

import { InfraError } from "@open-infra/errors";

/** `10.0.0.1:29500`, with brackets around an IPv6 address. */
export function endpoint(host: string, port: number): string {
  return host.includes(":") ? `[${host}]:${port}` : `${host}:${port}`;
}

/** Nobody answered at the address in time; `cause` is the last attempt's error. */
export class UnreachableError extends InfraError {
  readonly host: string;
  readonly port: number;
  readonly waitedMs: number;

  constructor(what: string, at: { host: string; port: number }, waitedMs: number, cause: unknown) {
    const reason = cause instanceof Error ? cause.message : String(cause);
    super(
      "unreachable",
      `${what} at ${endpoint(at.host, at.port)} was not reached in ${Math.round(waitedMs)} ms ` +
        `(last attempt: ${reason})`,
      { cause },
    );
    this.host = at.host;
    this.port = at.port;
    this.waitedMs = waitedMs;
  }
}

/** The other side does not hold the same secret; trying again does not help. */
export class SecretRefusedError extends InfraError {
  constructor(what: string, detail: string) {
    super(
      "secret-refused",
      `${what}: ${detail}; all ranks and launchers need the same OPEN_INFRA_SECRET`,
    );
  }
}

/** Another program, or another job, listens on the port. */
export class PortInUseError extends InfraError {
  readonly port: number;

  constructor(what: string, host: string, port: number, cause: unknown) {
    super(
      "port-in-use",
      `${what} cannot listen on ${endpoint(host, port)}: the port is in use; choose another ` +
        "(MASTER_PORT, or --master-port of open-infra launch)",
      { cause },
    );
    this.port = port;
  }
}

/** The connection to the store ended: whoever holds it has gone. */
export class StoreLostError extends InfraError {
  constructor(at: { host: string; port: number }) {
    super(
      "store-lost",
      `the connection to the store at ${endpoint(at.host, at.port)} ended: the launcher or the ` +
        "rank that holds it is gone",
    );
  }
}
