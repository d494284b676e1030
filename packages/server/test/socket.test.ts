// The server on a real socket over a scripted engine: what arrives in pieces, lies, hangs up, or
// meets a server that is going away.

import { once } from "node:events";
import { createServer } from "node:net";
import { afterEach, describe, expect, it } from "vitest";
import {
  ListenError,
  PortInUseError,
  type RunningServer,
  type ServerOptions,
  startServer,
} from "../src/index.ts";
import { demoTokenizer, errorOf, jsonOf, readSse } from "./helpers/http.ts";
import { postHead, RawConnection } from "./helpers/raw-http.ts";
import {
  endless,
  finish,
  type Script,
  ScriptedEngine,
  says,
  silence,
} from "./helpers/scripted-engine.ts";

const servers: RunningServer[] = [];
afterEach(async () => {
  for (const server of servers.splice(0)) {
    await server.drain(0);
    await server.close();
  }
});

async function start(
  script?: Script,
  options: ServerOptions = {},
): Promise<{ server: RunningServer; engine: ScriptedEngine }> {
  const engine = new ScriptedEngine(script);
  const server = await startServer({
    engine,
    tokenizer: demoTokenizer(),
    port: 0,
    options: { logLevel: "silent", ...options },
  });
  servers.push(server);
  await server.ready;
  return { server, engine };
}

function post(server: RunningServer, body: unknown, init: RequestInit = {}): Promise<Response> {
  return fetch(`${server.url}/v1/completions`, {
    method: "POST",
    headers: { "content-type": "application/json" },
    body: JSON.stringify(body),
    ...init,
  });
}

const body = { model: "demo", prompt: "x" };

describe("listening", () => {
  it("names its address and answers", async () => {
    const { server } = await start();
    expect(server.url).toBe(`http://127.0.0.1:${server.port}`);
    expect(server.port).toBeGreaterThan(0);
    expect(await (await fetch(`${server.url}/health`)).json()).toEqual({ status: "ok" });
  });

  it("a taken port is a PortInUseError that says what to do", async () => {
    const blocker = createServer().listen(0, "127.0.0.1");
    await once(blocker, "listening");
    const { port } = blocker.address() as { port: number };
    const starting = startServer({
      engine: new ScriptedEngine(),
      tokenizer: demoTokenizer(),
      port,
    });
    const error = await starting.catch((reason: unknown) => reason);
    blocker.close();
    expect(error).toBeInstanceOf(PortInUseError);
    expect(error).toMatchObject({ port, host: "127.0.0.1", code: "port-in-use" });
    expect(String(error)).toContain("--port");
  });

  it("an address of another machine is a ListenError", async () => {
    const parts = { engine: new ScriptedEngine(), tokenizer: demoTokenizer() };
    const starting = startServer({ ...parts, host: "192.0.2.1", port: 0 });
    await expect(starting).rejects.toBeInstanceOf(ListenError);
  });
});

describe("the Host header", () => {
  const status = async (server: RunningServer, host: string): Promise<number> => {
    using connection = await RawConnection.open(server);
    connection.send(`GET /health HTTP/1.1\r\nhost: ${host}\r\nconnection: close\r\n\r\n`);
    await connection.closed;
    return connection.answer.status;
  };

  it("must name this machine or an allowed name", async () => {
    const { server } = await start(undefined, { allowedHosts: ["llm.internal"] });
    for (const host of ["localhost", "127.0.0.1:8000", "[::1]:80", "a.localhost", "LLM.internal"]) {
      expect([host, await status(server, host)]).toEqual([host, 200]);
    }
    for (const host of [
      "evil.example",
      "evil.example:8000",
      "localhost.evil.example",
      "127.0.0.1.evil.example",
    ]) {
      expect([host, await status(server, host)]).toEqual([host, 403]);
    }
    expect(await status(server, "a b")).toBe(400);
  });

  it("is free when all are allowed", async () => {
    const { server } = await start(undefined, { allowedHosts: ["*"] });
    expect(await status(server, "anything.example")).toBe(200);
  });
});

describe("bodies that lie", () => {
  const limit = { maxBodyBytes: 2000 };

  it("a declared size over the limit is refused before the body comes", async () => {
    const { server, engine } = await start(undefined, limit);
    using connection = await RawConnection.open(server);
    connection.send(postHead("/v1/completions", { "content-length": 1e9 }));
    await expect.poll(() => connection.received).toContain("413");
    expect(connection.answer.body).toMatchObject({ error: { code: "request_too_large" } });
    expect(engine.requests).toEqual([]);
  });

  it("chunks are counted as they come", async () => {
    const { server, engine } = await start(undefined, limit);
    using connection = await RawConnection.open(server);
    connection.send(postHead("/v1/completions", { "transfer-encoding": "chunked" }));
    for (let i = 0; i < 5; i++) connection.send(`1f4\r\n${" ".repeat(500)}\r\n`);
    await expect.poll(() => connection.received).toContain("413");
    expect(engine.requests).toEqual([]);
  });

  it("a chunked body within the limit is served", async () => {
    const { server } = await start();
    const text = JSON.stringify(body);
    const stream = new ReadableStream({
      start: (controller) => {
        for (const part of [text.slice(0, 9), text.slice(9)]) {
          controller.enqueue(new TextEncoder().encode(part));
        }
        controller.close();
      },
    });
    const response = await post(server, body, { body: stream, duplex: "half" } as RequestInit);
    expect(response.status).toBe(200);
  });

  it("more than declared is cut off, and nothing is written into the answer", async () => {
    const { server, engine } = await start(endless);
    using connection = await RawConnection.open(server);
    const text = JSON.stringify({ ...body, stream: true });
    connection.send(postHead("/v1/completions", { "content-length": text.length }) + text);
    await expect.poll(() => connection.received).toContain("data: ");
    connection.send(text);
    await connection.closed;
    expect(connection.received).not.toContain("HTTP/1.1 400");
    await expect.poll(() => engine.running).toBe(0);
    engine.script = says(["ok"]);
    expect((await post(server, body)).status).toBe(200);
  });

  it("less than declared, then gone, reaches no engine", async () => {
    const { server, engine } = await start();
    const connection = await RawConnection.open(server);
    connection.send(`${postHead("/v1/completions", { "content-length": 500 })}{"model":`);
    await new Promise((resolve) => setTimeout(resolve, 30));
    connection.socket.destroy();
    expect((await post(server, body)).status).toBe(200);
    expect(engine.requests).toHaveLength(1);
  });

  it.each([
    ["not HTTP", "hello\r\n\r\n"],
    [
      "both lengths",
      postHead("/v1/completions", { "content-length": 5, "transfer-encoding": "chunked" }),
    ],
    ["a negative length", postHead("/v1/completions", { "content-length": -5 })],
    [
      "headers without end",
      `GET / HTTP/1.1\r\nhost: localhost\r\nx: ${"y".repeat(20_000)}\r\n\r\n`,
    ],
    [
      "a path with a backslash",
      "GET /..\\x HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\n\r\n",
    ],
  ])("%s gets an error in JSON", async (_what, text) => {
    const { server } = await start();
    using connection = await RawConnection.open(server);
    connection.send(text);
    await connection.closed;
    const { status, body: answer } = connection.answer;
    expect(status).toBeGreaterThanOrEqual(400);
    expect(status).toBeLessThan(500);
    expect(answer).toMatchObject({ error: { type: "invalid_request_error" } });
  });
});

describe("a client that hangs up", () => {
  it.each<[string, Script, object]>([
    ["in mid-stream", endless, { stream: true }],
    ["before the first token of a stream", silence, { stream: true }],
    ["while it waits for a whole answer", endless, {}],
    ["with many choices", endless, { stream: true, n: 20 }],
  ])("%s ends the engine's work", async (_what, script, fields) => {
    const { server, engine } = await start(script, { keepAliveMs: 20 });
    const text = JSON.stringify({ ...body, ...fields });
    const connection = await RawConnection.open(server);
    connection.send(postHead("/v1/completions", { "content-length": text.length }) + text);
    await expect.poll(() => engine.running).toBeGreaterThan(0);
    const choices = engine.running;
    await new Promise((resolve) => setTimeout(resolve, 50));
    connection.socket.destroy();
    await expect.poll(() => engine.running).toBe(0);
    expect(engine.aborted).toBe(choices);
    // Nothing is left behind: the next request is served.
    engine.script = says(["ok"]);
    expect((await jsonOf(post(server, body))).choices[0]?.text).toBe("ok");
  });
});

describe("a client that does not read", () => {
  it("stops its own stream and nobody else's", async () => {
    let made = 0;
    const { server, engine } = await start(async function* (_request, signal) {
      for (; !signal.aborted && made < 100_000; made++) {
        yield { type: "delta", text: "y".repeat(10_000), tokenIds: [1] };
      }
    });
    const text = JSON.stringify({ ...body, stream: true });
    using connection = await RawConnection.open(server);
    connection.socket.pause();
    connection.send(postHead("/v1/completions", { "content-length": text.length }) + text);
    let before = -1;
    await expect
      .poll(
        () => {
          const still = made > 0 && made === before;
          before = made;
          return still;
        },
        { interval: 100 },
      )
      .toBe(true);
    expect(made).toBeLessThan(5000);
    engine.script = says(["ok"]);
    expect((await post(server, body)).status).toBe(200);
    connection.socket.destroy();
    await expect.poll(() => engine.running).toBe(0);
  });
});

describe("going away", () => {
  /** Ends when the test says so. */
  function gated(): { script: Script; open: () => void } {
    const { promise, resolve } = Promise.withResolvers<void>();
    const script: Script = async function* (request, signal) {
      yield { type: "delta", text: "a", tokenIds: [1] };
      await Promise.race([promise, once(signal, "abort")]);
      if (signal.aborted) return;
      yield { type: "delta", text: "b", tokenIds: [2] };
      yield finish(request, 2);
    };
    return { script, open: resolve };
  }

  it("under load: running requests finish, new ones are refused", async () => {
    const { script, open } = gated();
    const { server, engine } = await start(script);
    const streams = Array.from({ length: 20 }, () => post(server, { ...body, stream: true }));
    const wholes = Array.from({ length: 5 }, () => post(server, body));
    const stats = fetch(`${server.url}/api/stats/stream`).then((response) => response.text());
    const responses = await Promise.all(streams);
    await expect.poll(() => engine.running).toBe(25);
    using kept = await RawConnection.open(server);
    const draining = server.drain(10_000);
    expect(server.phase).toBe("draining");
    // The connection was open before; its request is not served any more.
    const text = JSON.stringify(body);
    kept.send(postHead("/v1/completions", { "content-length": text.length }) + text);
    await expect
      .poll(() => kept.received + (kept.socket.closed ? "closed" : ""))
      .toMatch(/503|closed/);
    await expect(fetch(`${server.url}/health`)).rejects.toThrow();
    // Statistics have no end of their own and must not hold the server up.
    expect((await stats).length).toBeGreaterThan(0);
    open();
    await draining;
    for (const response of responses) {
      const { chunks, done } = readSse(await response.text());
      expect(done).toBe(true);
      expect(
        chunks
          .map(({ choices }) => choices[0] as { text: string })
          .map((c) => c.text)
          .join(""),
      ).toBe("ab");
    }
    for (const response of await Promise.all(wholes)) {
      expect((await jsonOf(response)).choices[0]?.text).toBe("ab");
    }
    expect(engine.aborted).toBe(0);
  });

  it("what is not done in time ends with an error, not a cut", async () => {
    const { server, engine } = await start(endless);
    const streaming = await post(server, { ...body, stream: true });
    const whole = post(server, body);
    await expect.poll(() => engine.running).toBe(2);
    await Promise.all([
      server.drain(50),
      (async () => {
        const { chunks, done } = readSse(await streaming.text());
        expect(done).toBe(false);
        expect(chunks.at(-1)).toMatchObject({ error: { code: "shutting_down" } });
        const response = await whole;
        expect(response.headers.get("retry-after")).toBe("10");
        expect((await errorOf(response, 503)).code).toBe("shutting_down");
      })(),
    ]);
    expect(engine.running).toBe(0);
  });

  it("close without requests is quick and can be repeated", async () => {
    const { server } = await start();
    await fetch(`${server.url}/health`).then((response) => response.text());
    await Promise.all([server.close(), server.close()]);
    await expect(fetch(`${server.url}/health`)).rejects.toThrow();
  });
});

describe("loading", () => {
  it("listens before the engine is there", async () => {
    const { promise, resolve } = Promise.withResolvers<ScriptedEngine>();
    const server = await startServer({
      engine: promise,
      tokenizer: Promise.resolve(demoTokenizer()),
      port: 0,
      options: { logLevel: "silent" },
    });
    servers.push(server);
    expect(server.phase).toBe("loading");
    expect((await fetch(`${server.url}/health`)).status).toBe(503);
    expect((await post(server, body)).status).toBe(503);
    resolve(new ScriptedEngine());
    await server.ready;
    expect((await post(server, body)).status).toBe(200);
  });

  it("`ready` rejects with the loader's error", async () => {
    const parts = { engine: Promise.reject(new Error("no weights")), tokenizer: demoTokenizer() };
    const server = await startServer({ ...parts, port: 0, options: { logLevel: "silent" } });
    servers.push(server);
    await expect(server.ready).rejects.toThrow("no weights");
    expect(server.phase).toBe("failed");
  });
});
