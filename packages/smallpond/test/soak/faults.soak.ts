// Real executors killed and frozen at random moments, job after job: the result is whole and every
// task is accepted once. faults.test.ts runs some of the same.

import { mkdtempSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { type Random, type SoakOptions, seededRandom } from "@open-infra/testing";
import { fromModule, init, type Session, type TaskEvent } from "../../src/index.ts";

const steps = new URL("../steps.ts", import.meta.url);

/** Runs until the time is over. @throws at the first violation, with the seed of its round */
export async function soak({ seed, minutes, log }: SoakOptions): Promise<void> {
  const end = performance.now() + minutes * 60_000;
  for (let round = 0; performance.now() < end; round++) {
    const random = seededRandom((seed + round) >>> 0);
    try {
      log(`round ${round}: ${await job(random)}`);
    } catch (error) {
      throw new Error(`seed ${random.seed}: ${error}`, { cause: error });
    }
  }
}

function disturb(
  session: Session,
  random: Random,
  most: number,
): { killed: number; frozen: number } {
  const done = { killed: 0, frozen: 0 };
  session.listen(({ type }) => {
    if (type !== "started" && type !== "finished") return;
    if (done.killed + done.frozen >= most || random.next() < 0.9) return;
    const freeze = random.next() < 0.3;
    if (freeze) done.frozen++;
    else done.killed++;
    setTimeout(
      () => {
        const pids = Object.values(session.executorPids).filter((pid) => pid > 0);
        if (pids.length < 2) return;
        try {
          process.kill(random.pick(pids), freeze ? "SIGSTOP" : "SIGKILL");
        } catch {
          // It ended in the meantime.
        }
      },
      random.int(0, 60),
    );
  });
  return done;
}

async function total(session: Session, partitions: number): Promise<number> {
  const items = Array.from({ length: partitions * 10 }, (_, i) => i);
  const frame = (await session.fromItems(items))
    .repartition(partitions, { byRows: true })
    .mapBatches(fromModule(steps, "slow", [10]))
    .repartition(7, { by: "item % 7" })
    .map("item + 1 AS item");
  const rows = await frame.takeAll();
  return rows.reduce((sum, row) => sum + Number(row.item), 0);
}

async function job(random: Random): Promise<string> {
  const dataRoot = mkdtempSync(join(tmpdir(), "smallpond-soak-"));
  const partitions = random.int(10, 60);
  const rows = partitions * 10;
  const expected = (rows * (rows + 1)) / 2;
  const options = {
    jobId: "job",
    dataRoot,
    numExecutors: random.int(2, 5),
    executorCpus: 1,
    heartbeatTimeoutMs: 2500,
    maxRestarts: 20,
    maxLosses: 20,
    durable: random.next() < 0.3,
    keepIntermediates: random.pick([true, false, "while-space"] as const),
  };
  try {
    await using session = await init(options);
    const accepted = new Map<string, number>();
    session.listen(({ type, task }: TaskEvent) => {
      if (type === "released") accepted.delete(task.key);
      if (type !== "finished" && type !== "reused") return;
      accepted.set(task.key, (accepted.get(task.key) ?? 0) + 1);
    });
    const done = disturb(session, random, random.int(1, 7));
    const sum = await total(session, partitions);
    if (sum !== expected) throw new Error(`the sum is ${sum}, not ${expected}`);
    const twice = [...accepted].find(([, times]) => times > 1);
    if (twice !== undefined) throw new Error(`task ${twice[0]} was accepted ${twice[1]} times`);
    return `${partitions} partitions, ${done.killed} killed, ${done.frozen} frozen`;
  } finally {
    rmSync(dataRoot, { recursive: true, force: true });
  }
}
