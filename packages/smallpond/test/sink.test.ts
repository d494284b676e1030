// A sink that is broken off anywhere: a new folder has all files or is not there, other folders get
// the rest from the next attempt or the next writer, and nothing is there twice.

import { mkdirSync, mkdtempSync, readdirSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { basename, join } from "node:path";
import { setTimeout as sleep } from "node:timers/promises";
import { Worker } from "node:worker_threads";
import { seededRandom, testSeed } from "@open-infra/testing";
import { afterAll, expect, test } from "vitest";
import type { DataSet } from "../src/index.ts";
import { openFolder } from "../src/session/folder-writer.ts";
import { cleanSink, publishSink } from "../src/task/ops/sink.ts";
import type { SinkPlace } from "../src/task/task.ts";

const root = mkdtempSync(join(tmpdir(), "smallpond-sink-"));
afterAll(() => rmSync(root, { recursive: true, force: true }));

const fileCount = 60;
/** No process has it, so that whoever writes next finds the writer dead. */
const deadPid = 2 ** 22 + 1;
let serial = 0;

function stage(hasFiles: boolean): { place: SinkPlace; partitions: DataSet[] } {
  const path = join(root, `case-${serial++}`, "out");
  mkdirSync(join(path, ".."), { recursive: true });
  const name = `.staging-${deadPid}-x`;
  const staging = hasFiles ? join(path, name) : join(path, "..", `.out${name}`);
  mkdirSync(staging, { recursive: true });
  if (hasFiles) writeFileSync(join(path, "file-3.txt"), "of someone else");
  const partitions = Array.from({ length: fileCount }, (_, i): DataSet => {
    const file = join(staging, `${i}-0-file-${i}.txt`);
    writeFileSync(file, String(i));
    return { format: "files", parts: [{ path: file }] };
  });
  return { place: { path, staging, kind: "link" }, partitions };
}

/** Publishes until the thread is ended after a while; whether it got to the end. */
async function broken(given: ReturnType<typeof stage>, afterMs: number): Promise<boolean> {
  const worker = new Worker(new URL("./sink-worker.ts", import.meta.url), {
    workerData: given,
    execArgv: ["--conditions=@open-infra/source"],
  });
  const { promise, resolve } = Promise.withResolvers<boolean>();
  worker.on("error", () => resolve(false));
  worker.on("message", async (message) => {
    if (message === "published") resolve(true);
    else {
      await sleep(afterMs);
      await worker.terminate();
      resolve(false);
    }
  });
  return await promise;
}

const visible = (path: string): string[] => {
  try {
    return readdirSync(path).filter((name) => !name.startsWith("."));
  } catch {
    return [];
  }
};

function expectAll(path: string, others: number): void {
  const contents = visible(path).map((name) => readFileSync(join(path, name), "utf8"));
  expect(contents).toHaveLength(fileCount + others);
  expect(new Set(contents).size).toBe(fileCount + others);
  const listed = readFileSync(join(path, ".MANIFEST.txt"), "utf8").trim().split("\n");
  expect(listed.map((file) => readFileSync(file, "utf8"))).toEqual(
    Array.from({ length: fileCount }, (_, i) => String(i)),
  );
}

test.each([false, true])("beside files that are there: %s", async (hasFiles) => {
  const seed = testSeed();
  const random = seededRandom(seed);
  const others = hasFiles ? 1 : 0;
  let stopped = 0;
  for (let round = 0; round < 12; round++) {
    const given = stage(hasFiles);
    const { path, staging } = given.place;
    const afterMs = random.int(0, 14);
    if (!(await broken(given, afterMs))) stopped++;
    const shown = visible(path).length;
    const where = `seed ${seed}, round ${round}, after ${afterMs} ms`;
    if (!hasFiles) expect([0, fileCount], where).toContain(shown);
    if (hasFiles && round % 2 === 1) {
      // Nobody tries again; whoever writes there next finds all of it or nothing.
      await openFolder(path, "append");
      expect([others, fileCount + others], where).toContain(visible(path).length);
      continue;
    }
    const op = { kind: "sink-publish", place: given.place } as const;
    const data = await publishSink(op, given.partitions);
    // The next attempt may have been under way, too.
    await publishSink(op, given.partitions);
    expectAll(path, others);
    const kept = await cleanSink({ kind: "sink-clean", place: given.place }, data);
    expectAll(path, others);
    expect(kept.parts.map((part) => basename(part.path))).toContain("file-4.txt");
    expect(readdirSync(path)).toHaveLength(fileCount + others + 1);
    expect(readdirSync(join(path, ".."))).toEqual(["out"]);
    expect(staging.startsWith(root)).toBe(true);
  }
  expect(stopped, `seed ${seed}`).toBeGreaterThan(0);
});
