// A listening socket that only those who hold the secret get past. Strangers are refused, told of
// once, and bounded: in time, in number, and in what they may send before they have proved
// themselves.

import { createServer, type Server, type Socket } from "node:net";
import { InputError } from "@open-infra/errors";
import { endpoint, PortInUseError } from "./tcp-errors.ts";
import { handshakeKey, type Purpose, ServerHandshake } from "./tcp-handshake.ts";

/** Where to listen, and for whom. */
export interface GuardOptions {
  /** For errors: `the store`. */
  readonly what: string;
  /** Empty: all addresses of the machine. */
  readonly host: string;
  /** 0 takes a free one. */
  readonly port: number;
  /** May be empty on a loopback address only. */
  readonly secret: string;
  readonly purpose: Purpose;
  /** `hello` is what the client said of itself; `rest` came after its handshake. */
  readonly onConnection: (socket: Socket, hello: number, rest: Uint8Array) => void;
  /** Told of the first stranger. @default a warning of the process */
  readonly onStranger?: (message: string) => void;
  /** @default 5000 */
  readonly handshakeMs?: number;
  /** Connections that have not proved themselves; the oldest makes place. @default 64 */
  readonly waitingLimit?: number;
}

/** True for addresses that only processes of this machine reach. */
export function isLoopback(host: string): boolean {
  return host === "localhost" || host === "::1" || /^(::ffff:)?127\./.test(host);
}

/** A server that hands on only connections that hold the secret. */
export class GuardedServer {
  readonly #options: GuardOptions;
  readonly #key: Buffer;
  readonly #server: Server;
  readonly #waiting = new Set<Socket>();
  readonly #accepted = new Set<Socket>();
  #strangers = 0;

  private constructor(options: GuardOptions) {
    this.#options = options;
    this.#key = handshakeKey(options.secret);
    this.#server = createServer({ noDelay: true, allowHalfOpen: true }, (socket) =>
      this.#greet(socket),
    );
  }

  /** @throws InputError without a secret beyond loopback, PortInUseError */
  static async listen(options: GuardOptions): Promise<GuardedServer> {
    const { what, host, port, secret } = options;
    if (secret === "" && !isLoopback(host)) {
      const where = host === "" ? "all addresses" : host;
      throw new InputError(
        "OPEN_INFRA_SECRET",
        `not set, though ${what} listens on ${where}`,
        "the same secret on all hosts, such as `openssl rand -hex 32` makes",
      );
    }
    const guard = new GuardedServer(options);
    const { promise, resolve, reject } = Promise.withResolvers<void>();
    guard.#server.once("error", (error: NodeJS.ErrnoException) => {
      const taken = error.code === "EADDRINUSE";
      reject(taken ? new PortInUseError(what, host || "*", port, error) : error);
    });
    guard.#server.listen(host === "" ? { port } : { port, host }, resolve);
    await promise;
    // What happens to the listening socket later does not concern those who are connected.
    guard.#server.on("error", () => {});
    return guard;
  }

  get port(): number {
    const address = this.#server.address();
    return typeof address === "object" && address !== null ? address.port : 0;
  }

  /** How many connections were refused. */
  get strangers(): number {
    return this.#strangers;
  }

  unref(): void {
    this.#server.unref();
  }

  #greet(socket: Socket): void {
    const { waitingLimit = 64, handshakeMs = 5000, purpose, onConnection } = this.#options;
    if (this.#waiting.size >= waitingLimit) {
      const [oldest] = this.#waiting;
      if (oldest !== undefined) this.#refuse(oldest, "too many that have not proved themselves");
    }
    this.#waiting.add(socket);
    const handshake = new ServerHandshake(this.#key, purpose);
    const late = setTimeout(() => this.#refuse(socket, "no proof in time"), handshakeMs);
    late.unref();
    const leave = (): void => {
      clearTimeout(late);
      this.#waiting.delete(socket);
      this.#accepted.delete(socket);
    };
    socket.on("error", () => socket.destroy());
    socket.once("close", leave);
    const listen = (bytes: Buffer): void => {
      const step = handshake.push(bytes);
      if (step.send !== undefined) socket.write(step.send);
      if (step.refused !== undefined) this.#refuse(socket, step.refused);
      if (step.done === undefined) return;
      clearTimeout(late);
      this.#waiting.delete(socket);
      this.#accepted.add(socket);
      socket.off("data", listen);
      onConnection(socket, step.done.hello, step.done.rest);
    };
    socket.on("data", listen);
    // A stranger that hangs up before its proof was only looking.
    socket.once("end", () => {
      if (this.#waiting.has(socket)) socket.destroy();
    });
  }

  #refuse(socket: Socket, reason: string): void {
    this.#waiting.delete(socket);
    const address = (socket.remoteAddress ?? "?").replace(/^::ffff:/, "");
    const from = endpoint(address, socket.remotePort ?? 0);
    socket.removeAllListeners("data");
    // What was written before (the verdict) still goes out; what comes in is dropped with the rest.
    socket.destroySoon();
    if (this.#strangers++ > 0) return;
    const { what, onStranger = warn } = this.#options;
    onStranger(
      `${what} refused a connection from ${from}: ${reason}; later ones are refused silently`,
    );
  }

  /** Ends the listening and all connections. */
  close(): void {
    this.#server.close();
    for (const socket of [...this.#waiting, ...this.#accepted]) socket.destroy();
  }

  /** Ends the listening only. */
  stopListening(): void {
    this.#server.close();
    for (const socket of this.#waiting) socket.destroy();
  }
}

function warn(message: string): void {
  process.emitWarning(message, { code: "OPEN_INFRA_STRANGER" });
}
