// Two nodes of two ranks each, in network namespaces: what goes right, and every way it goes wrong.

import { existsSync, readFileSync } from "node:fs";
import { fileURLToPath } from "node:url";
import { findCompiler } from "@open-infra/jit";
import { hasUcx } from "@open-infra/ranks";
import { requirement } from "@open-infra/testing";
import { afterEach, describe, expect, it } from "vitest";
import {
  badLineRequirement,
  type HostLaunch,
  namespacesRequirement,
  TwoHosts,
} from "./namespaces.ts";

const script = fileURLToPath(new URL("./launch/rank.ts", import.meta.url));
const compiler = findCompiler() !== undefined || "no C compiler (apt-get install gcc libc6-dev)";
const namespaces = compiler === true ? namespacesRequirement() : compiler;
const badLine = namespaces === true ? badLineRequirement() : namespaces;
const ucx = hasUcx() || "no libucp.so.0 (apt-get install libucx0)";

let hosts: TwoHosts | undefined;
afterEach(() => {
  hosts?.[Symbol.dispose]();
  hosts = undefined;
});

function start(args: readonly string[]): [HostLaunch, HostLaunch] {
  hosts ??= new TwoHosts();
  return [hosts.launch(0, args), hosts.launch(1, args)];
}

async function codes(nodes: readonly HostLaunch[]): Promise<(number | null)[]> {
  return Promise.all(nodes.map(({ code }) => code));
}

function pidOf(rank: number, nodes: readonly HostLaunch[]): number {
  const text = nodes.map((node) => node.text()).join("");
  return Number(new RegExp(`joined ${rank} (\\d+)`).exec(text)?.[1]);
}

function isRunning(pid: number): boolean {
  if (!existsSync(`/proc/${pid}/stat`)) return false;
  return !/\) [ZX] /.test(readFileSync(`/proc/${pid}/stat`, "utf8"));
}

async function expectNoRanks(nodes: readonly HostLaunch[]): Promise<void> {
  const pids = [0, 1, 2, 3].map((rank) => pidOf(rank, nodes)).filter((pid) => pid > 0);
  const end = performance.now() + 10_000;
  while (pids.some(isRunning) && performance.now() < end) {
    await new Promise((resolve) => setTimeout(resolve, 20));
  }
  expect(pids.filter(isRunning)).toEqual([]);
}

const allJoined = async (nodes: readonly HostLaunch[]): Promise<void> => {
  await Promise.all(nodes.map((node) => node.until(/joined/, 2)));
};

describe.skipIf(requirement("two hosts", namespaces))("two hosts", () => {
  it("share memory within, and stream over TCP between each other", async () => {
    const nodes = start(["--timeout", "60", "--", script, "stream", "3"]);
    expect(await codes(nodes), nodes.map((node) => node.text()).join("\n")).toEqual([0, 0]);
    expect(nodes[0].text()).toMatch(/joined 0 .* by heap,shm,tcp,tcp/);
    expect(nodes[1].text()).toMatch(/joined 3 .* by tcp,tcp,shm,heap/);
    expect(nodes[1].text()).toContain("rank 3 has got 3 rows of each");
  }, 90_000);

  it.skipIf(requirement("two hosts over UCX", ucx))(
    "stream over UCX",
    async () => {
      const args = ["--timeout", "60", "--transport", "ucx", "--", script, "stream", "3"];
      const nodes = start(args);
      expect(await codes(nodes), nodes.map((node) => node.text()).join("\n")).toEqual([0, 0]);
      expect(nodes[0].text()).toMatch(/joined 0 .* by heap,ucx,ucx,ucx/);
      expect(nodes[0].text()).toContain("rank 1 has got 3 rows of each");
    },
    90_000,
  );

  it.skipIf(requirement("two hosts over a bad line", badLine))(
    "get every byte over a line that is slow and loses packets",
    async () => {
      hosts = new TwoHosts();
      hosts.worsen();
      const nodes = start(["--timeout", "60", "--", script, "stream", "2"]);
      expect(await codes(nodes), nodes.map((node) => node.text()).join("\n")).toEqual([0, 0]);
    },
    120_000,
  );

  it.each(["tcp", ...(ucx === true ? ["ucx"] : [])])(
    "end with a named error when the wire is cut, over %s",
    async (transport) => {
      const args = ["--timeout", "6", "--transport", transport, "--", script, "barriers"];
      const nodes = start(args);
      await allJoined(nodes);
      hosts?.cut();
      const start0 = performance.now();
      const ended = await codes(nodes);
      expect(performance.now() - start0).toBeLessThan(30_000);
      for (const code of ended) expect(code).toBe(1);
      const text = nodes[0].text();
      expect(text).toMatch(/Rank(Dead|Timeout)Error|GroupAbortedError/);
      expect(text).toMatch(/rank [23] \(/);
      expect(text).toMatch(/in barrier/);
      await expectNoRanks(nodes);
    },
    90_000,
  );

  it.each(["tcp", ...(ucx === true ? ["ucx"] : [])])(
    "end when a rank of the other host is killed, over %s",
    async (transport) => {
      const args = ["--timeout", "20", "--transport", transport, "--", script, "barriers"];
      const nodes = start(args);
      await allJoined(nodes);
      process.kill(pidOf(2, nodes), "SIGKILL");
      expect(await codes(nodes)).toEqual([128 + 9, 128 + 9]);
      expect(nodes[0].text()).toMatch(/rank 2 \(.*\) ended by SIGKILL/);
      await expectNoRanks(nodes);
    },
    90_000,
  );

  it("end when a rank of the other host is frozen, naming it", async () => {
    const nodes = start(["--timeout", "6", "--", script, "barriers"]);
    await allJoined(nodes);
    const frozen = pidOf(3, nodes);
    process.kill(frozen, "SIGSTOP");
    for (const code of await codes(nodes)) expect(code).toBe(1);
    const text = nodes.map((node) => node.text()).join("");
    expect(text).toMatch(new RegExp(`rank 3 \\([^)]*process ${frozen}\\)`));
    await expectNoRanks(nodes);
  }, 90_000);

  it("end when the other launcher is killed", async () => {
    const nodes = start(["--timeout", "20", "--", script, "barriers"]);
    await allJoined(nodes);
    nodes[1].child.kill("SIGKILL");
    expect(await nodes[0].code).not.toBe(0);
    expect(nodes[0].text()).toMatch(/the launcher of node 1|rank [23]/);
    await expectNoRanks(nodes);
  }, 90_000);

  it("refuse another secret at once", async () => {
    hosts = new TwoHosts();
    const args = ["--timeout", "6", "--", script, "join"];
    const first = hosts.launch(0, args);
    const second = hosts.launch(1, args, { OPEN_INFRA_SECRET: "another" });
    expect(await second.code).toBe(1);
    expect(second.text()).toContain("our secret was refused");
    expect(await first.code).not.toBe(0);
    expect(first.text()).toMatch(/refused a connection from 10\.213\.7\.2/);
    expect(first.text()).toMatch(/rank [23]/);
  }, 60_000);

  it("say when the port is taken, and when nobody is there", async () => {
    hosts = new TwoHosts();
    const args = ["--timeout", "8", "--", script, "join"];
    const first = hosts.launch(0, args);
    await new Promise((resolve) => setTimeout(resolve, 1500));
    const second = hosts.launch(0, args);
    expect(await second.code).toBe(1);
    expect(second.text()).toContain("the port is in use");
    first.child.kill("SIGKILL");
    const alone = hosts.launch(1, ["--timeout", "2", "--", script, "join"]);
    expect(await alone.code).toBe(1);
    expect(alone.text()).toMatch(/the store at 10\.213\.7\.1:29500 was not reached in \d+ ms/);
  }, 60_000);
});
