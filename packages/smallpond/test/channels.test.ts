// The contract of channels, on all three: pipes to child processes, files, NATS JetStream.

import { type ChildProcess, fork } from "node:child_process";
import { mkdtempSync, readdirSync, readFileSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { fileURLToPath } from "node:url";
import { requirement } from "@open-infra/testing";
import { afterAll, afterEach, beforeAll, beforeEach, describe, expect, test } from "vitest";
import type { Channel, Delivery } from "../src/channel/channel.ts";
import { IpcParent } from "../src/channel/ipc-parent.ts";
import { freshSpace, type JobCard, openChannel } from "../src/channel/job-card.ts";
import { ChannelError } from "../src/errors.ts";
import type { ConsumerJob } from "./cluster/consumer-process.ts";
import { natsServer, TestNats } from "./cluster/nats-server.ts";

const program = fileURLToPath(new URL("./cluster/consumer-process.ts", import.meta.url));
const needs = { ipc: true, files: true, nats: natsServer } as const;

let server: TestNats | undefined;
beforeAll(async () => {
  if (natsServer === true) server = await TestNats.start(["--user", "u", "--pass", "p"]);
});
afterAll(async () => await server?.stop());

async function until(what: string, met: () => boolean): Promise<void> {
  for (let i = 0; i < 1_500; i++) {
    if (met()) return;
    await new Promise((resolve) => setTimeout(resolve, 20));
  }
  throw new Error(`not within 30 s: ${what}`);
}

describe.each(["ipc", "files", "nats"] as const)("%s", (kind) => {
  const skip = requirement(`the channel ${kind}`, needs[kind]);
  let folder: string;
  let card: Pick<JobCard, "space" | "channel" | "secret"> | undefined;
  let channel: Channel;
  const children = new Map<string, ChildProcess>();

  beforeEach(async () => {
    if (skip) return;
    folder = mkdtempSync(join(tmpdir(), "smallpond-channel-"));
    const login = { servers: server?.url ?? "", user: "u", password: "p" };
    const choice = kind === "nats" ? { kind, ...login } : { kind };
    card = kind === "ipc" ? undefined : { ...freshSpace("test"), channel: choice };
    channel = card === undefined ? new IpcParent() : await openChannel(folder, card, true);
  });
  afterEach(async () => {
    if (skip) return;
    for (const child of children.values()) child.kill("SIGKILL");
    children.clear();
    await channel.close();
    rmSync(folder, { recursive: true, force: true });
  });

  function consumer(name: string, given: Partial<ConsumerJob> = {}): void {
    const job: ConsumerJob = {
      name,
      mode: "record",
      folder,
      leaseMs: 1_000,
      inFlight: 4,
      ...(card !== undefined && { card }),
      ...given,
    };
    const child = fork(program, [JSON.stringify(job)], {
      execArgv: ["--conditions=@open-infra/source"],
    });
    if (channel instanceof IpcParent) channel.attach(child);
    children.set(name, child);
  }

  const lines = (name?: string): string[] =>
    readdirSync(folder)
      .filter((file) => (name === undefined ? file.endsWith(".log") : file === `${name}.log`))
      .flatMap((file) => readFileSync(join(folder, file), "utf8").trim().split("\n"));

  test.skipIf(skip)(
    "messages arrive in order, once, whatever their size and however soon",
    async () => {
      const got: string[] = [];
      await Promise.all(Array.from({ length: 500 }, (_, i) => channel.send("q", `a${i}`, `${i}`)));
      await channel.consume("q", ({ body, ack }) => {
        got.push(body);
        void ack();
      });
      // More than a server takes at once, and no ASCII.
      const large = "größer ".repeat(400_000);
      await channel.send("q", "large", large);
      for (let i = 500; i < 1_000; i++) await channel.send("q", `a${i}`, `${i}`);
      await channel.send("q", "a999", "999");
      await channel.send("q", "a7", "7");
      await channel.send("q", "last", "last");
      await until("the last message", () => got.at(-1) === "last");
      const numbers = Array.from({ length: 1_000 }, (_, i) => String(i));
      expect(got.filter((body) => body.length < 9)).toEqual([...numbers, "last"]);
      expect(got[500] === large).toBe(true);
    },
  );

  test.skipIf(skip)("ten processes take two thousand messages, each one once", async () => {
    for (let i = 0; i < 10; i++) consumer(`c${i}`, { leaseMs: 30_000 });
    const numbers = Array.from({ length: 2_000 }, (_, i) => String(i));
    await Promise.all(numbers.map((body) => channel.send("work", `w${body}`, body)));
    await until("all messages", () => lines().length >= 2_000);
    const codes = [...children.values()].map(
      (child) => new Promise((resolve) => child.once("exit", resolve)),
    );
    for (let i = 0; i < 10; i++) await channel.send(`stop-c${i}`, `stop${i}`, "stop");
    expect(await Promise.all(codes)).toEqual(Array.from({ length: 10 }, () => 0));
    expect(lines().sort((a, b) => Number(a) - Number(b))).toEqual(numbers);
  });

  test.skipIf(skip)("what a killed or frozen process has in hand goes to another", async () => {
    consumer("killed", { mode: "hold" });
    await channel.send("work", "w0", "0");
    await until("the first to take it", () => lines("killed").includes("0"));
    children.get("killed")?.kill("SIGKILL");
    consumer("frozen", { mode: "hold" });
    await until("the second to take it", () => lines("frozen").includes("0 again"));
    children.get("frozen")?.kill("SIGSTOP");
    consumer("third");
    await until("the third to take it", () => lines("third").includes("0 again"));
    children.get("frozen")?.kill("SIGCONT");
    await channel.send("work", "w1", "1");
    await until("the next one", () => lines().includes("1"));
    expect(lines("third").filter((line) => line.startsWith("0"))).toEqual(["0 again"]);
  });

  test.skipIf(skip)(
    "beats arrive, a dropped queue is empty, a closed channel says so",
    async () => {
      const heard = new Set<string>();
      await channel.watch((from, body) => heard.add(`${from} ${body}`));
      consumer("one");
      await until("a beat", () => heard.has("one here"));
      await channel.send("left", "l0", "0");
      await channel.drop("left");
      await channel.send("left", "l1", "1");
      const first = await new Promise<Delivery>((resolve) => {
        void channel.consume("left", resolve);
      });
      expect(first.body).toBe("1");
      await first.ack();
      await channel.close();
      if (kind !== "ipc") await expect(channel.send("q", "x", "")).rejects.toThrow(ChannelError);
    },
  );
});
