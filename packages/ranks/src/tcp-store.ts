// The store as ranks of several processes and hosts use it: a connection to whoever holds the
// dictionary.

import type { Socket } from "node:net";
import type { Store } from "./store.ts";
import { StoreTimeoutError } from "./store.ts";
import { connectGuarded } from "./tcp-connect.ts";
import { StoreLostError } from "./tcp-errors.ts";
import {
  encodeFrame,
  FrameReader,
  type StoreRequest,
  type StoreResponse,
} from "./tcp-store-frames.ts";

/** Where the store is. */
export interface TcpStoreOptions {
  readonly host: string;
  readonly port: number;
  readonly secret?: string;
  /** How long to try to reach it, and the longest a `get` waits unless told otherwise. */
  readonly timeoutMs?: number;
}

/** How long the goodbye may take. */
const lingerMs = 2000;

interface Pending {
  readonly resolve: (response: StoreResponse) => void;
  readonly reject: (error: Error) => void;
}

/** A connection to a {@link TcpStoreServer}. */
export class TcpStore implements Store {
  readonly host: string;
  readonly port: number;
  /** This machine's address as the server sees it: one that reaches us from there. */
  readonly localAddress: string;
  /** Links between ranks are proved by the same secret. */
  readonly secret: string;
  readonly #socket: Socket;
  readonly #timeoutMs: number;
  readonly #pending: Map<number, Pending>;
  #next = 0;
  #lost: StoreLostError | undefined;

  private constructor(
    options: Required<TcpStoreOptions>,
    socket: Socket,
    pending: Map<number, Pending>,
  ) {
    this.host = options.host;
    this.port = options.port;
    this.secret = options.secret;
    this.localAddress = (socket.localAddress ?? "127.0.0.1").replace(/^::ffff:/, "");
    this.#socket = socket;
    this.#timeoutMs = options.timeoutMs;
    this.#pending = pending;
    socket.setKeepAlive(true, 10_000);
    socket.on("end", () => socket.destroy());
    socket.once("close", () => this.#end());
    if (socket.destroyed) this.#end();
  }

  /** @throws UnreachableError, SecretRefusedError */
  static async connect(options: TcpStoreOptions): Promise<TcpStore> {
    const { secret = "", timeoutMs = 100_000 } = options;
    const full = { ...options, secret, timeoutMs };
    const frames = new FrameReader();
    const pending = new Map<number, Pending>();
    const socket = await connectGuarded(
      { ...full, what: "the store", purpose: "store" },
      (made) => ({
        onBytes: (bytes) => {
          try {
            for (const frame of frames.push(bytes)) settle(pending, frame as StoreResponse);
          } catch {
            made.destroy();
          }
        },
      }),
    );
    return new TcpStore(full, socket, pending);
  }

  async set(key: string, value: string): Promise<void> {
    await this.#ask({ call: "set", key, value }, this.#timeoutMs);
  }

  async get(key: string, options: { readonly timeoutMs?: number } = {}): Promise<string> {
    const { timeoutMs = this.#timeoutMs } = options;
    const response = await this.#ask({ call: "get", key, timeoutMs }, timeoutMs);
    if (response.timedOut !== undefined) throw new StoreTimeoutError(key, response.timedOut);
    return String(response.value);
  }

  async add(key: string, amount: number): Promise<number> {
    const response = await this.#ask({ call: "add", key, value: amount }, this.#timeoutMs);
    if (response.problem !== undefined) throw new TypeError(response.problem);
    return Number(response.value);
  }

  /** Written by the server, unless somebody has, if this connection ends without `close`. */
  async setWill(key: string, value: string): Promise<void> {
    await this.#ask({ call: "will", key, value }, this.#timeoutMs);
  }

  /** Whether the process stays up for this connection alone. @default it does */
  unref(): void {
    this.#socket.unref();
  }

  /** Ends the connection without a word, as the death of the process would. */
  abandon(): void {
    this.#socket.destroy();
  }

  close(): void {
    if (this.#lost !== undefined) return;
    this.#socket.write(encodeFrame({ id: this.#next++, call: "bye", key: "" }));
    this.#socket.end();
    // What is written is the system's to deliver; a network that is gone must not hold us up.
    this.#socket.unref();
    setTimeout(() => this.#socket.destroy(), lingerMs).unref();
    this.#end();
  }

  async #ask(request: Omit<StoreRequest, "id">, timeoutMs: number): Promise<StoreResponse> {
    if (this.#lost !== undefined) throw this.#lost;
    const id = this.#next++;
    const { promise, resolve, reject } = Promise.withResolvers<StoreResponse>();
    this.#pending.set(id, { resolve, reject });
    this.#socket.write(encodeFrame({ id, ...request }));
    // The server answers a `get` in time by itself; this is for a network that swallows packets.
    const late = setTimeout(() => resolve({ id, timedOut: timeoutMs }), timeoutMs + 2000);
    try {
      const response = await promise;
      if (response.timedOut !== undefined) throw new StoreTimeoutError(request.key, timeoutMs);
      return response;
    } finally {
      clearTimeout(late);
      this.#pending.delete(id);
    }
  }

  #end(): void {
    this.#lost ??= new StoreLostError(this);
    for (const { reject } of this.#pending.values()) reject(this.#lost);
    this.#pending.clear();
  }
}

function settle(pending: ReadonlyMap<number, Pending>, response: StoreResponse): void {
  pending.get(response.id)?.resolve(response);
}
