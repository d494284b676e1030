// Limits of memory, disk and time: whoever meets one ends with an error that names it, and the
// others go on.

import { spawnSync } from "node:child_process";
import { mkdirSync, mkdtempSync, readdirSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { requirement } from "@open-infra/testing";
import { afterEach, expect, test } from "vitest";
import {
  fromModule,
  init,
  type Session,
  type SessionOptions,
  type TaskError,
} from "../src/index.ts";

const hungry = new URL("./hungry-steps.ts", import.meta.url);
const mib = 2 ** 20;
const undo: (() => unknown)[] = [];

async function open(options: SessionOptions): Promise<Session> {
  const root = options.dataRoot ?? mkdtempSync(join(tmpdir(), "smallpond-limits-"));
  if (options.dataRoot === undefined) {
    undo.push(() => rmSync(root, { recursive: true, force: true }));
  }
  const session = await init({ jobId: "job", dataRoot: root, executorCpus: 2, ...options });
  undo.push(() => session.shutdown());
  return session;
}

afterEach(async () => {
  for (const step of undo.splice(0).reverse()) await step();
});

async function reasonOf(work: Promise<unknown>): Promise<TaskError> {
  return (await work.then(
    () => undefined,
    (error: unknown) => error,
  )) as TaskError;
}

test("a function that takes memory without bound ends with its limit, others go on", async () => {
  const session = await open({ maxFailures: 1 });
  const rows = await session.fromItems([1, 2, 3]);
  const options = { memoryBytes: 192 * mib };
  const [heap, bytes, other] = await Promise.all([
    reasonOf(rows.mapBatches(fromModule(hungry, "hoard"), options).compute()),
    reasonOf(rows.mapBatches(fromModule(hungry, "swell"), options).compute()),
    rows.map("item * 2 AS item").takeAll(),
  ]);
  for (const error of [heap, bytes]) {
    expect(error.reason).toBe("memory");
    expect(error.message).toMatch(/limit is 192 MiB/);
  }
  expect(other).toHaveLength(3);
  expect(Object.keys(session.executorPids)).toEqual(["local-0"]);
});

test("a query that takes memory without bound ends with its limit", async () => {
  const session = await open({ maxFailures: 1, boost: 1 });
  const rows = await session.fromItems([1]);
  const query = rows.map("(SELECT list(repeat('x', 1000) || range) FROM range(5000000)) AS l", {
    memoryBytes: 64 * mib,
  });
  const error = await reasonOf(query.compute());
  expect(error.reason).toBe("memory");
  expect(error.message).toMatch(/its limit is 64 MiB/);
  expect(await rows.count()).toBe(1);
});

test("2 MB of memory are enough after some doublings", async () => {
  const session = await open({ executorMemoryBytes: 1024 * mib });
  const frame = (await session.fromItems([1])).map(
    "(SELECT count(DISTINCT md5(range::VARCHAR)) FROM range(300000)) AS n",
    { memoryBytes: 2 * mib },
  );
  let retried = 0;
  session.listen(({ type }) => type === "retried" && retried++);
  expect(await frame.takeAll()).toEqual([{ n: 300000 }]);
  expect(retried).toBeGreaterThan(0);
});

test("no executor is lost while a function blocks, and a blocked one can be stopped", async () => {
  const session = await open({ heartbeatTimeoutMs: 1500, maxRestarts: 0, executorCpus: 1 });
  const rows = await session.fromItems([1]);
  expect(await rows.mapBatches(fromModule(hungry, "block", [3500])).count()).toBe(1);
  const controller = new AbortController();
  const forever = rows.mapBatches(fromModule(hungry, "block", [1e9]));
  session.listen(({ type, task }) => {
    if (type === "started" && task.op.kind === "call") {
      setTimeout(() => controller.abort(new Error("enough")), 300);
    }
  });
  const run = session.execute(forever.node, { signal: controller.signal });
  await expect(run).rejects.toThrow("enough");
  expect(await rows.map("item + 1 AS item").takeAll()).toEqual([{ item: 2 }]);
  expect(Object.keys(session.executorPids)).toEqual(["local-0"]);
});

/** A small file system of its own, where this process may mount one. */
function smallDisk(folder: string, bytes: number): true | string {
  mkdirSync(folder, { recursive: true });
  const made = spawnSync("mount", ["-t", "tmpfs", "-o", `size=${bytes}`, "tmpfs", folder]);
  if (made.status === 0) return true;
  return "mounting a tmpfs is not permitted; run as root";
}

test("a full disk is an error with its folder and what is free", async (context) => {
  const disk = mkdtempSync(join(tmpdir(), "smallpond-disk-"));
  const met = smallDisk(disk, 24 * mib);
  if (requirement("a full disk", met)) return context.skip();
  undo.push(() => rmSync(disk, { recursive: true, force: true }));
  undo.push(() => spawnSync("umount", ["-l", disk]));
  const session = await open({ dataRoot: disk, maxFailures: 2 });
  const seed = await session.fromItems([1]);
  const big = seed
    .partialSort("1")
    .select("SELECT md5(range::VARCHAR) AS m FROM {0}, range(2000000)");
  const error = await reasonOf(big.compute());
  expect(error.reason).toBe("disk");
  expect(error.message).toContain(session.folder.root);
  expect(error.message).toMatch(/has \d+ bytes free/);
  await session.folder.settled();
  const left = readdirSync(join(session.folder.root, "staging")).filter((name) =>
    /^[0-9a-f]{32}/.test(name),
  );
  expect(left).toEqual([]);
  // Room again: the same session goes on.
  expect(await seed.map("item + 1 AS item").takeAll()).toEqual([{ item: 2 }]);
});

test("less free than the floor is an error before anything is written", async () => {
  const session = await open({ minFreeDiskBytes: 2 ** 60, maxFailures: 1 });
  const error = await reasonOf((await session.fromItems([1])).map("item").compute());
  expect(error.message).toMatch(/less is free than minFreeDiskBytes/);
  expect(error.reason).toBe("disk");
});
