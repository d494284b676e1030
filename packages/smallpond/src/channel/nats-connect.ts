// Connects to a NATS server and says in our words why it could not. Secrets are read here, from
// where the options say, and never get into an error.

import { readFileSync } from "node:fs";
import {
  type Authenticator,
  AuthorizationError,
  connect,
  credsAuthenticator,
  type NatsConnection,
  type NodeConnectionOptions,
  nkeyAuthenticator,
  PermissionViolationError,
} from "@nats-io/transport-node";
import { ChannelError } from "../errors.ts";

/** Where a NATS server is and who we are there. Files must be readable where executors run, too. */
export interface NatsOptions {
  /** `nats://host:4222`, or several of one cluster. @default nats://127.0.0.1:4222 */
  readonly servers?: string | readonly string[];
  readonly user?: string;
  readonly password?: string;
  readonly token?: string;
  /** A file with an nkey's seed. */
  readonly nkeySeedFile?: string;
  /** A file as `nsc generate creds` writes it: a JWT and its seed. */
  readonly credentialsFile?: string;
  /** TLS is used where the server offers it; with this, only then. */
  readonly tls?: {
    readonly caFile?: string;
    readonly certFile?: string;
    readonly keyFile?: string;
    /** The server speaks TLS from the first byte. */
    readonly handshakeFirst?: boolean;
  };
  /** How long the first connection may take. @default 5 s */
  readonly connectTimeoutMs?: number;
  /** Copies of the stream in a cluster of servers. @default 1 */
  readonly replicas?: number;
  /** Where the server keeps messages: `memory` does not survive its restart. @default "file" */
  readonly storage?: "file" | "memory";
}

/** A server's address without what opens it. */
export function withoutSecret(server: string): string {
  return server.replace(/^((?:[a-z]+:\/\/)?)[^@/]*@/, "$1");
}

/** Names the servers, for errors. */
export function whereIs({ servers = defaultServer }: NatsOptions): string {
  const list = typeof servers === "string" ? [servers] : servers;
  return list
    .map(withoutSecret)
    .map((server) => (server.includes("://") ? server : `nats://${server}`))
    .join(",");
}

const defaultServer = "nats://127.0.0.1:4222";

/**
 * A connection that comes back by itself.
 *
 * @throws ChannelError `unreachable`, `credentials`, `tls`
 */
export async function connectNats(options: NatsOptions, name: string): Promise<NatsConnection> {
  const where = whereIs(options);
  try {
    return await connect(connectionOptions(options, name, where));
  } catch (error) {
    throw namedNatsError(error, where);
  }
}

function connectionOptions(
  options: NatsOptions,
  name: string,
  where: string,
): NodeConnectionOptions {
  const { servers = defaultServer, user, password, token, tls } = options;
  const { user: urlUser, password: urlPassword } = loginIn(servers);
  const login = user ?? urlUser;
  const pass = password ?? urlPassword;
  const authenticators: Authenticator[] = [];
  if (options.nkeySeedFile !== undefined) {
    authenticators.push(nkeyAuthenticator(secret(options.nkeySeedFile, where)));
  }
  if (options.credentialsFile !== undefined) {
    authenticators.push(credsAuthenticator(secret(options.credentialsFile, where)));
  }
  return {
    servers: (typeof servers === "string" ? [servers] : [...servers]).map(withoutSecret),
    name,
    timeout: options.connectTimeoutMs ?? 5_000,
    maxReconnectAttempts: -1,
    reconnectTimeWait: 200,
    reconnectJitter: 50,
    pingInterval: 10_000,
    ...(login !== undefined && { user: login }),
    ...(pass !== undefined && { pass }),
    ...(token !== undefined && { token }),
    ...(authenticators.length > 0 && { authenticator: authenticators }),
    ...(tls !== undefined && { tls }),
  };
}

/** `nats://user:password@host`: the client would not read it. */
function loginIn(servers: string | readonly string[]): {
  readonly user?: string;
  readonly password?: string;
} {
  const first = typeof servers === "string" ? servers : (servers[0] ?? "");
  const [, user, password] = /^(?:[a-z]+:\/\/)?([^:@/]+)(?::([^@/]*))?@/.exec(first) ?? [];
  return {
    ...(user !== undefined && { user: decodeURIComponent(user) }),
    ...(password !== undefined && { password: decodeURIComponent(password) }),
  };
}

function secret(file: string, where: string): Uint8Array {
  try {
    // A seed's file ends in a line break, which is not part of it.
    return new TextEncoder().encode(readFileSync(file, "utf8").trim());
  } catch (error) {
    throw new ChannelError("credentials", where, `cannot read ${file}: ${String(error)}`, {
      cause: error,
    });
  }
}

/** A client's error as ours. */
export function namedNatsError(error: unknown, where: string): ChannelError {
  if (error instanceof ChannelError) return error;
  const failure = error instanceof Error ? error : new Error(String(error));
  const cause = failure.cause instanceof Error ? failure.cause : undefined;
  const text = cause === undefined ? failure.message : `${failure.message} (${cause.message})`;
  const code = String((cause as NodeJS.ErrnoException | undefined)?.code ?? "");
  const as = (reason: string, message: string): ChannelError =>
    new ChannelError(reason, where, message, { cause: error });
  if (error instanceof PermissionViolationError) {
    return as("permission", `the server does not let this user: ${text}`);
  }
  if (error instanceof AuthorizationError || /authoriz|authentic/i.test(failure.message)) {
    return as("credentials", `the server refuses the user, password, token or key: ${text}`);
  }
  if (failure.name === "JetStreamNotEnabled") {
    const hint = "start it with -js, or turn JetStream on for this account";
    return as("no-jetstream", `JetStream is not enabled on the server: ${hint}`);
  }
  if (/CERT|SELF_SIGNED|TLS|SSL|ALTNAME/i.test(code) || /certificate|tls|ssl/i.test(text)) {
    return as("tls", `no TLS connection: ${text}`);
  }
  return as("unreachable", `no connection: ${text}`);
}
