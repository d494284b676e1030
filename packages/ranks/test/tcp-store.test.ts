// The store over TCP: what a rank can rely on, and what a stranger cannot do.

import { connect, createServer, type Socket } from "node:net";
import { InputError } from "@open-infra/errors";
import { StoreTimeoutError, TcpStore, TcpStoreServer } from "@open-infra/ranks";
import { describe, expect, it } from "vitest";

const secret = "a secret of this test";

async function withServer(
  body: (server: TcpStoreServer, warnings: string[]) => Promise<void>,
): Promise<void> {
  const warnings: string[] = [];
  using server = await TcpStoreServer.listen({ secret, onStranger: (text) => warnings.push(text) });
  await body(server, warnings);
}

function join(server: TcpStoreServer, held = secret, timeoutMs = 5000): Promise<TcpStore> {
  return TcpStore.connect({ host: "127.0.0.1", port: server.port, secret: held, timeoutMs });
}

/** All that a raw connection reads until it ends. */
async function readAll(socket: Socket): Promise<Buffer> {
  const chunks: Buffer[] = [];
  socket.on("data", (chunk: Buffer) => chunks.push(chunk));
  socket.on("error", () => {});
  await new Promise((resolve) => socket.once("close", resolve));
  return Buffer.concat(chunks);
}

describe("the store over TCP", () => {
  it("sets, gets, waits for a key that is not there yet, and counts", async () => {
    await withServer(async (server) => {
      const a = await join(server);
      const b = await join(server);
      const waiting = b.get("late");
      await a.set("early", 'ä\n"1"');
      expect(await b.get("early")).toBe('ä\n"1"');
      await a.set("late", "2");
      expect(await waiting).toBe("2");
      expect(await a.add("counter", 3)).toBe(3);
      expect(await b.add("counter", 4)).toBe(7);
      expect(await a.get("counter")).toBe("7");
      await expect(a.add("early", 1)).rejects.toThrow("not a counter");
      const large = "x".repeat(1 << 20);
      await a.set("large", large);
      expect(await b.get("large")).toBe(large);
      a.close();
      b.close();
    });
  });

  it("says which key nobody has written in time", async () => {
    await withServer(async (server) => {
      const store = await join(server);
      const error = await store.get("card/3", { timeoutMs: 30 }).catch((thrown: unknown) => thrown);
      expect(error).toBeInstanceOf(StoreTimeoutError);
      expect((error as StoreTimeoutError).key).toBe("card/3");
      store.close();
    });
  });

  it("writes a will only when a client goes without a word", async () => {
    await withServer(async (server) => {
      const watcher = await join(server);
      const orderly = await join(server);
      await orderly.setWill("gone", "orderly");
      orderly.close();
      await expect(watcher.get("gone", { timeoutMs: 100 })).rejects.toThrow(StoreTimeoutError);
      const hasty = await join(server);
      await hasty.setWill("gone", "hasty");
      // As the system does when a process is killed.
      hasty.abandon();
      expect(await watcher.get("gone")).toBe("hasty");
      watcher.close();
    });
  });

  it("fails what is pending when the server goes", async () => {
    const server = await TcpStoreServer.listen({ secret });
    const store = await join(server);
    const pending = store.get("never").catch((error: unknown) => error);
    await store.set("reached", "1");
    server[Symbol.dispose]();
    expect(await pending).toMatchObject({ code: "store-lost", name: "StoreLostError" });
    await expect(store.set("a", "b")).rejects.toMatchObject({ code: "store-lost" });
  });

  it("takes seconds, not minutes, to say that nobody is there", async () => {
    const probe = createServer();
    await new Promise<void>((resolve) => probe.listen(0, "127.0.0.1", resolve));
    const { port } = probe.address() as { port: number };
    await new Promise((resolve) => probe.close(resolve));
    const attempt = TcpStore.connect({ host: "127.0.0.1", port, secret, timeoutMs: 200 });
    await expect(attempt).rejects.toMatchObject({ code: "unreachable", port });
  });
});

describe("strangers at the store", () => {
  it("learn nothing but a nonce, and are told of once", async () => {
    await withServer(async (server, warnings) => {
      const greetings = ["GET / HTTP/1.1\r\n\r\n", "OIRANK\x01\0", "", "\0".repeat(5000)];
      for (const greeting of greetings) {
        const socket = connect(server.port, "127.0.0.1");
        socket.write(Buffer.from(greeting, "latin1"));
        socket.end(Buffer.alloc(40, 7));
        expect((await readAll(socket)).length, greeting.slice(0, 8)).toBeLessThanOrEqual(32);
      }
      expect(server.strangers).toBeGreaterThanOrEqual(2);
      expect(warnings).toHaveLength(1);
      expect(warnings[0]).toContain("127.0.0.1");
      const store = await join(server);
      await store.set("still", "works");
      store.close();
    });
  });

  it("with another secret get a typed error that says so at once", async () => {
    await withServer(async (server) => {
      for (const other of ["another secret", ""]) {
        await expect(join(server, other, 60_000)).rejects.toMatchObject({ code: "secret-refused" });
      }
    });
  });

  it("cannot keep ranks out by connections that say nothing", async () => {
    await withServer(async (server) => {
      const idle = Array.from({ length: 200 }, () => connect(server.port, "127.0.0.1"));
      for (const socket of idle) socket.on("error", () => {});
      await Promise.all(
        idle.map((socket) => new Promise((resolve) => socket.once("connect", resolve))),
      );
      const store = await join(server);
      expect(await store.add("n", 1)).toBe(1);
      store.close();
      for (const socket of idle) socket.destroy();
    });
  });

  it("cannot pretend to be the store", async () => {
    const fake = createServer((socket) => {
      socket.on("error", () => {});
      // A nonce, then a verdict that says yes with a proof that is none.
      socket.once("data", () => {
        socket.write(Buffer.alloc(32, 1));
        socket.once("data", () => socket.write(Buffer.concat([Buffer.of(1), Buffer.alloc(32, 2)])));
      });
    });
    await new Promise<void>((resolve) => fake.listen(0, "127.0.0.1", resolve));
    const { port } = fake.address() as { port: number };
    const attempt = TcpStore.connect({ host: "127.0.0.1", port, secret, timeoutMs: 5000 });
    await expect(attempt).rejects.toMatchObject({ code: "secret-refused" });
    fake.close();
  });

  it("are why a store beyond loopback needs a secret, and a port its own server", async () => {
    await expect(TcpStoreServer.listen({ host: "" })).rejects.toThrow(InputError);
    await expect(TcpStoreServer.listen({ host: "0.0.0.0" })).rejects.toThrow("OPEN_INFRA_SECRET");
    await withServer(async (server) => {
      const second = TcpStoreServer.listen({ secret, port: server.port });
      await expect(second).rejects.toMatchObject({ code: "port-in-use", port: server.port });
    });
  });
});
