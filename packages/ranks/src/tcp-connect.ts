// Connecting to a guarded server: tries until somebody is there, then proves itself.

import { connect, type OnReadOpts, type Socket } from "node:net";
import { endpoint, SecretRefusedError, UnreachableError } from "./tcp-errors.ts";
import { ClientHandshake, handshakeKey, type Purpose } from "./tcp-handshake.ts";

/** Whom to connect to, and as whom. */
export interface ConnectOptions {
  /** For errors: `the store`. */
  readonly what: string;
  readonly host: string;
  readonly port: number;
  readonly secret: string;
  readonly purpose: Purpose;
  /** What the other side learns of this one; see GuardOptions.onConnection. */
  readonly hello?: number;
  /** How long to keep trying. */
  readonly timeoutMs: number;
  /** How long one attempt may take. @default 5000 */
  readonly attemptMs?: number;
}

/**
 * Gets what the socket reads: bytes of the handshake first, then all others. With `buffer` the
 * socket reads into memory of the caller's choice.
 */
export interface Reader {
  readonly onBytes: (bytes: Uint8Array) => void;
  /** Where the next bytes go. @default memory of Node's */
  readonly buffer?: () => Uint8Array;
}

/**
 * Connects, again and again until `timeoutMs` has passed.
 *
 * @throws SecretRefusedError at once, UnreachableError with the last attempt's reason
 */
export async function connectGuarded(
  options: ConnectOptions,
  makeReader: (socket: Socket) => Reader,
): Promise<Socket> {
  const start = performance.now();
  let pauseMs = 20;
  for (;;) {
    const left = options.timeoutMs - (performance.now() - start);
    let problem: unknown;
    try {
      return await attempt(
        options,
        Math.min(options.attemptMs ?? 5000, Math.max(left, 1)),
        makeReader,
      );
    } catch (error) {
      if (error instanceof SecretRefusedError) throw error;
      problem = error;
    }
    const waited = performance.now() - start;
    if (waited + pauseMs >= options.timeoutMs) {
      throw new UnreachableError(options.what, options, waited, problem);
    }
    await new Promise((resolve) => setTimeout(resolve, pauseMs));
    pauseMs = Math.min(pauseMs * 2, 500);
  }
}

function attempt(
  options: ConnectOptions,
  limitMs: number,
  makeReader: (socket: Socket) => Reader,
): Promise<Socket> {
  const { what, host, port, purpose, hello } = options;
  const { promise, resolve, reject } = Promise.withResolvers<Socket>();
  const name = `${what} at ${endpoint(host, port)}`;
  const handshake = new ClientHandshake(handshakeKey(options.secret), purpose, name, hello);
  let reader: Reader | undefined;
  let proved = false;
  const onBytes = (bytes: Uint8Array): void => {
    if (proved) {
      reader?.onBytes(bytes);
      return;
    }
    try {
      const step = handshake.push(bytes);
      if (step.send !== undefined) socket.write(step.send);
      if (step.done === undefined) return;
      proved = true;
      clearTimeout(late);
      reader = makeReader(socket);
      resolve(socket);
      if (step.done.rest.length > 0) reader.onBytes(step.done.rest);
    } catch (error) {
      reject(error);
      socket.destroy();
    }
  };
  const greeting = Buffer.alloc(4096);
  const onread: OnReadOpts = {
    buffer: (() => reader?.buffer?.() ?? greeting) as unknown as Uint8Array,
    callback: (count, buffer) => {
      onBytes(buffer.subarray(0, count));
      return true;
    },
  };
  const socket = connect({ host, port, noDelay: true, allowHalfOpen: true, onread });
  const late = setTimeout(() => {
    reject(new Error(`no answer in ${Math.round(limitMs)} ms`));
    socket.destroy();
  }, limitMs);
  socket.once("connect", () => socket.write(handshake.opening));
  socket.on("error", reject);
  socket.once("end", () => {
    if (!proved) socket.destroy();
  });
  socket.once("close", () => {
    clearTimeout(late);
    reject(new Error("the other side closed the connection before it proved itself"));
  });
  return promise;
}
