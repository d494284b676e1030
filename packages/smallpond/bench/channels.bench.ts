// Dispatch by each channel, in turns: a message the size of a task to another process and its
// answer back, one at a time and a thousand at once. NATS is a server of this machine, with its
// file store; files are in the temporary folder.

import { type ChildProcess, fork, spawn } from "node:child_process";
import { mkdtempSync, rmSync } from "node:fs";
import { type AddressInfo, createServer } from "node:net";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { setTimeout as sleep } from "node:timers/promises";
import { fileURLToPath } from "node:url";
import { type BenchRow, hasProgram, median } from "@open-infra/testing";
import type { Channel } from "../src/channel/channel.ts";
import { IpcParent } from "../src/channel/ipc-parent.ts";
import { type ChannelChoice, freshSpace, openChannel } from "../src/channel/job-card.ts";

const bodyBytes = 2_000;

/** A channel with a process at its other end. */
class Line {
  readonly name: string;
  readonly #channel: Channel;
  readonly #child: ChildProcess;
  readonly #waiting = new Map<string, () => void>();
  readonly #body = "x".repeat(bodyBytes);
  #serial = 0;

  private constructor(name: string, channel: Channel, child: ChildProcess) {
    this.name = name;
    this.#channel = channel;
    this.#child = child;
  }

  static async open(name: string, folder: string, choice: ChannelChoice): Promise<Line> {
    const piped = choice.kind === "ipc";
    const card = { ...freshSpace(name), channel: choice };
    const channel = piped ? new IpcParent() : await openChannel(folder, card, true);
    const echo = fileURLToPath(new URL("./channel-echo.ts", import.meta.url));
    const job = JSON.stringify({ folder, ...(!piped && { card }) });
    const child = fork(echo, [job], { execArgv: ["--conditions=@open-infra/source"] });
    if (channel instanceof IpcParent) channel.attach(child);
    const line = new Line(name, channel, child);
    const ready = line.#expect("ready");
    await channel.consume("back", ({ id, ack }) => {
      void ack();
      line.#waiting.get(id)?.();
      line.#waiting.delete(id);
    });
    await ready;
    return line;
  }

  #expect(id: string): Promise<void> {
    return new Promise((resolve) => this.#waiting.set(id, resolve));
  }

  /** There and back. */
  async trip(): Promise<void> {
    const id = `m${this.#serial++}`;
    const back = this.#expect(`r${id}`);
    await this.#channel.send("there", id, this.#body);
    await back;
  }

  async close(): Promise<void> {
    this.#child.kill();
    await this.#channel.close();
  }
}

async function startNats(folder: string): Promise<{ readonly url: string; stop: () => void }> {
  const probe = createServer();
  await new Promise<void>((resolve) => probe.listen(0, "127.0.0.1", resolve));
  const { port } = probe.address() as AddressInfo;
  await new Promise((resolve) => probe.close(resolve));
  const flags = ["-a", "127.0.0.1", "-p", String(port), "-js", "-sd", join(folder, "store")];
  const server = spawn("nats-server", flags, { stdio: "ignore" });
  await sleep(500);
  return { url: `nats://127.0.0.1:${port}`, stop: () => server.kill() };
}

/** @param options.quick Fewer messages. */
export async function run(options: { readonly quick?: boolean } = {}): Promise<BenchRow[]> {
  const folder = mkdtempSync(join(tmpdir(), "smallpond-channels-"));
  const server = hasProgram("nats-server") ? await startNats(folder) : undefined;
  const lines: Line[] = [];
  try {
    lines.push(await Line.open("ipc", folder, { kind: "ipc" }));
    lines.push(await Line.open("files", folder, { kind: "files" }));
    if (server !== undefined) {
      lines.push(await Line.open("nats", folder, { kind: "nats", servers: server.url }));
    }
    return await measure(lines, options.quick ? 50 : 300, options.quick ? 1 : 5);
  } finally {
    for (const line of lines) await line.close();
    server?.stop();
    rmSync(folder, { recursive: true, force: true });
  }
}

async function measure(lines: readonly Line[], trips: number, rounds: number): Promise<BenchRow[]> {
  const one = new Map<string, number[]>();
  const many = new Map<string, number[]>();
  const add = (to: Map<string, number[]>, { name }: Line, startMs: number): void => {
    const list = to.get(name) ?? [];
    to.set(name, [...list, (performance.now() - startMs) * 1000]);
  };
  for (let round = 0; round < rounds; round++) {
    for (const line of lines) {
      for (let i = 0; i < trips / rounds; i++) {
        const startMs = performance.now();
        await line.trip();
        add(one, line, startMs);
      }
      const startMs = performance.now();
      await Promise.all(Array.from({ length: 1_000 }, () => line.trip()));
      add(many, line, startMs);
    }
  }
  const rows = lines.flatMap(({ name }): BenchRow[] => {
    const us = median(one.get(name) ?? []);
    const allUs = median(many.get(name) ?? []);
    const pipes = { us: median(one.get("ipc") ?? []), all: median(many.get("ipc") ?? []) };
    const peer = name === "ipc" ? { peer: "is the peer" } : { peer: "pipes" };
    const ratio = (value: number): { peerRatio?: number } =>
      name === "ipc" ? {} : { peerRatio: value };
    return [
      { case: `${name}, there and back`, shape: "2 kB", us, ...peer, ...ratio(pipes.us / us) },
      {
        case: `${name}, 1,000 at once`,
        shape: "2 kB",
        us: allUs,
        rate: `${((1e9 / allUs) * 1e-3).toFixed(1)} k/s`,
        ...peer,
        ...ratio(pipes.all / allUs),
      },
    ];
  });
  return rows.sort((a, b) => Number(a.case.includes("1,000")) - Number(b.case.includes("1,000")));
}
