// The store's server: one dictionary for all ranks of a job, held by the launcher of node 0 or by
// rank 0, behind a guard.

import type { Socket } from "node:net";
import { GuardedServer } from "./tcp-guard.ts";
import { encodeFrame, FrameReader, type StoreRequest } from "./tcp-store-frames.ts";

/** Where the store listens. */
export interface StoreServerOptions {
  /** Empty: all addresses of the machine, which needs a secret. @default "127.0.0.1" */
  readonly host?: string;
  /** 0 takes a free one. @default 0 */
  readonly port?: number;
  readonly secret?: string;
  /** Told of the first stranger. @default a warning of the process */
  readonly onStranger?: (message: string) => void;
}

/** Somebody who waits for a key. */
interface Waiter {
  readonly id: number;
  readonly client: Client;
  readonly timer: NodeJS.Timeout;
}

interface Client {
  readonly socket: Socket;
  readonly frames: FrameReader;
  will: { readonly key: string; readonly value: string } | undefined;
}

const longestWaitMs = 2 ** 31 - 1;

/** Holds the dictionary. */
export class TcpStoreServer implements Disposable {
  readonly #values = new Map<string, string>();
  readonly #waiting = new Map<string, Set<Waiter>>();
  readonly #clients = new Set<Client>();
  #guard: GuardedServer | undefined;

  private constructor() {}

  /** @throws InputError without a secret beyond loopback, PortInUseError */
  static async listen(options: StoreServerOptions = {}): Promise<TcpStoreServer> {
    const { host = "127.0.0.1", port = 0, secret = "", onStranger } = options;
    const server = new TcpStoreServer();
    server.#guard = await GuardedServer.listen({
      what: "the store",
      host,
      port,
      secret,
      purpose: "store",
      onConnection: (socket, _hello, rest) => server.#welcome(socket, rest),
      ...(onStranger !== undefined && { onStranger }),
    });
    return server;
  }

  get port(): number {
    return this.#guard?.port ?? 0;
  }

  /** How many connections were refused. */
  get strangers(): number {
    return this.#guard?.strangers ?? 0;
  }

  /** Lets the process end although the server listens. */
  unref(): void {
    this.#guard?.unref();
  }

  #welcome(socket: Socket, rest: Uint8Array): void {
    const client: Client = { socket, frames: new FrameReader(), will: undefined };
    this.#clients.add(client);
    socket.setKeepAlive(true, 10_000);
    const receive = (bytes: Uint8Array): void => {
      try {
        for (const frame of client.frames.push(bytes)) this.#answer(client, frame);
      } catch {
        // Whoever holds the secret and talks nonsense is cut off; the job learns it by the will.
        socket.destroy();
      }
    };
    socket.on("data", receive);
    socket.on("end", () => socket.end());
    socket.once("close", () => this.#forget(client));
    receive(rest);
  }

  #answer(client: Client, frame: unknown): void {
    const { id, call, key, value, timeoutMs } = checked(frame);
    const { socket } = client;
    if (call === "get") {
      this.#get(client, id, key, timeoutMs ?? 100_000);
      return;
    }
    if (call === "set") this.#set(key, String(value));
    else if (call === "will") client.will = { key, value: String(value) };
    else if (call === "bye") client.will = undefined;
    if (call !== "add") {
      socket.write(encodeFrame({ id }));
      return;
    }
    const held = this.#values.get(key) ?? "0";
    const sum = Number(held) + Number(value);
    if (!Number.isSafeInteger(sum)) {
      socket.write(encodeFrame({ id, problem: `${key} holds ${held}, not a counter` }));
      return;
    }
    this.#set(key, `${sum}`);
    socket.write(encodeFrame({ id, value: sum }));
  }

  #set(key: string, value: string): void {
    this.#values.set(key, value);
    for (const { id, client, timer } of this.#waiting.get(key) ?? []) {
      clearTimeout(timer);
      client.socket.write(encodeFrame({ id, value }));
    }
    this.#waiting.delete(key);
  }

  #get(client: Client, id: number, key: string, timeoutMs: number): void {
    const value = this.#values.get(key);
    if (value !== undefined) {
      client.socket.write(encodeFrame({ id, value }));
      return;
    }
    const waiters = this.#waiting.get(key) ?? new Set<Waiter>();
    this.#waiting.set(key, waiters);
    const timer = setTimeout(
      () => {
        waiters.delete(waiter);
        client.socket.write(encodeFrame({ id, timedOut: timeoutMs }));
      },
      Math.min(timeoutMs, longestWaitMs),
    );
    timer.unref();
    const waiter: Waiter = { id, client, timer };
    waiters.add(waiter);
  }

  #forget(client: Client): void {
    this.#clients.delete(client);
    for (const waiters of this.#waiting.values()) {
      for (const waiter of waiters) {
        if (waiter.client !== client) continue;
        clearTimeout(waiter.timer);
        waiters.delete(waiter);
      }
    }
    if (client.will !== undefined && !this.#values.has(client.will.key)) {
      this.#set(client.will.key, client.will.value);
    }
  }

  [Symbol.dispose](): void {
    for (const client of this.#clients) client.will = undefined;
    this.#guard?.close();
  }
}

function checked(frame: unknown): StoreRequest {
  const { id, call, key, value, timeoutMs } = frame as Record<string, unknown>;
  const known = ["set", "get", "add", "will", "bye"].includes(String(call));
  const sane =
    Number.isSafeInteger(id) &&
    known &&
    typeof key === "string" &&
    (value === undefined || typeof value === "string" || typeof value === "number") &&
    (timeoutMs === undefined || (typeof timeoutMs === "number" && timeoutMs >= 0));
  if (!sane) throw new Error("a frame that is no request");
  return frame as StoreRequest;
}
