// Starts Debian's nats-server on loopback for a test, with its store in a folder of its own; killed
// and started again on the same port where a test wants that.

import { type ChildProcess, spawn, spawnSync } from "node:child_process";
import { mkdtempSync, rmSync } from "node:fs";
import { type AddressInfo, connect, createServer } from "node:net";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { setTimeout as sleep } from "node:timers/promises";
import { hasProgram, type Requirement } from "@open-infra/testing";

/** Debian's package. */
export const natsServer: Requirement =
  hasProgram("nats-server") || "nats-server is not installed (apt-get install nats-server)";

/** A port that nobody listens on. */
export async function freePort(): Promise<number> {
  const server = createServer();
  await new Promise<void>((resolve) => server.listen(0, "127.0.0.1", resolve));
  const { port } = server.address() as AddressInfo;
  await new Promise((resolve) => server.close(resolve));
  return port;
}

async function listens(port: number): Promise<boolean> {
  return await new Promise((resolve) => {
    const socket = connect(port, "127.0.0.1");
    socket.once("connect", () => resolve(true));
    socket.once("error", () => resolve(false));
    socket.once("close", () => socket.destroy());
    socket.unref();
  });
}

/** A server of a test. */
export class TestNats {
  readonly port: number;
  readonly folder: string;
  readonly #flags: readonly string[];
  #child: ChildProcess | undefined;
  #exited: Promise<void> = Promise.resolve();

  private constructor(port: number, flags: readonly string[]) {
    this.port = port;
    this.#flags = flags;
    this.folder = mkdtempSync(join(tmpdir(), "smallpond-nats-"));
  }

  /** @param flags Such as `--user`; JetStream is on unless `jetstream` is false. */
  static async start(flags: readonly string[] = [], jetstream = true): Promise<TestNats> {
    const port = await freePort();
    const server = new TestNats(port, flags);
    if (jetstream) server.#store = ["-js", "-sd", join(server.folder, "store")];
    await server.up();
    return server;
  }

  #store: readonly string[] = [];

  get url(): string {
    return `nats://127.0.0.1:${this.port}`;
  }

  async up(): Promise<void> {
    const flags = ["-a", "127.0.0.1", "-p", String(this.port), ...this.#store, ...this.#flags];
    const child = spawn("nats-server", flags, { stdio: "ignore" });
    this.#child = child;
    this.#exited = new Promise((resolve) => child.once("exit", () => resolve()));
    for (let i = 0; i < 200; i++) {
      if (await listens(this.port)) return;
      await sleep(25);
    }
    throw new Error(`nats-server does not listen on ${this.port}`);
  }

  /** As a power cut would, as far as the process goes. */
  async kill(): Promise<void> {
    this.#child?.kill("SIGKILL");
    await this.#exited;
  }

  async stop(): Promise<void> {
    await this.kill();
    rmSync(this.folder, { recursive: true, force: true });
  }
}

/** A certificate that signs itself, for 127.0.0.1. */
export function selfSigned(folder: string): { readonly cert: string; readonly key: string } {
  const cert = join(folder, "cert.pem");
  const key = join(folder, "key.pem");
  const words =
    `req -x509 -newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -nodes -days 2 ` +
    `-subj /CN=localhost -addext subjectAltName=IP:127.0.0.1,DNS:localhost`;
  const made = spawnSync("openssl", [...words.split(" "), "-keyout", key, "-out", cert]);
  if (made.status !== 0) throw new Error(`openssl: ${made.stderr}`);
  return { cert, key };
}
