// What a rank does in the contract suite: all that has to work, in one run, as a list of what did
// not.

import type { Group } from "@open-infra/ranks";
import { type Random, seededRandom } from "@open-infra/testing";
import { allToAll, countUp, inOrder, openWorkspace, runOn, wrongOf } from "./kernels.ts";

/** What every rank is told. */
export interface ContractData {
  readonly seed: number;
  readonly rounds: number;
}

type Note = (what: string, holds: boolean) => void;

export default async function run(group: Group, data: ContractData): Promise<string[]> {
  const problems: string[] = [];
  const note: Note = (what, holds) => {
    if (!holds) problems.push(`rank ${group.rank}: ${what}`);
  };
  const random = seededRandom(data.seed);
  await checkKernels(group, data, note);
  await checkBarriers(group, random, note);
  await checkWaits(group, note);
  await checkTraffic(group, note);
  await checkEvents(group, note);
  await checkMessages(group, data.seed, note);
  await checkParts(group, note);
  note("failed", (await group.exchange("problems", `${problems.length}`)).length === group.size);
  return problems;
}

async function checkKernels(group: Group, data: ContractData, note: Note): Promise<void> {
  const { size } = group;
  const { seed, rounds } = data;
  const most = 24_576;
  const shape = { bytes: size * most, flags: 2 * size, rounds, most, seed };
  note("bytes that were not there at their signal", (await runOn(group, allToAll, shape)) === 0);
  const order = { bytes: 400 * 8, flags: 1, rounds: 400 };
  note("signals out of order", (await runOn(group, inOrder, order)) === 0);
  const counts = { bytes: 8, flags: 1, rounds: 200 };
  note("counts that were lost", (await runOn(group, countUp, counts)) === 0);
}

/** Nobody passes a barrier before all have come: their puts from before it are there. */
async function checkBarriers(group: Group, random: Random, note: Note): Promise<void> {
  const { size, rank } = group;
  const window = await group.openWindow({ name: "barriers", bytes: 8, flags: size });
  const late = Array.from({ length: 20 }, () => random.int(0, size));
  late.forEach((slow, i) => {
    if (slow === rank) Atomics.wait(new Int32Array(new SharedArrayBuffer(4)), 0, 0, 2);
    for (let peer = 0; peer < size; peer++) window.signal(peer, rank, i + 1);
    group.barrier();
    for (let peer = 0; peer < size; peer++) {
      // Over a link a signal may still be under way; where memory is shared it may not.
      if (!window.isMapped(peer)) window.wait(peer, i + 1, { peer, awaited: "a signal" });
      note(`rank ${peer} had not come to barrier ${i}`, window.flag(peer) >= i + 1);
    }
    group.barrier();
  });
  group.closeWindow(window);
}

async function checkWaits(group: Group, note: Note): Promise<void> {
  const window = await group.openWindow({ name: "waits", bytes: 16, flags: 2 });
  const next = (group.rank + 1) % group.size;
  const start = performance.now();
  const ended = window.wait(0, 1, { peer: next, awaited: "nothing", timeoutMs: 30 });
  note(`a wait for nothing ended as ${ended}`, ended === "timed-out");
  note("a wait ended before its time", performance.now() - start >= 29);
  note("a flag was not zero", window.flag(0) === 0 && window.flag(1) === 0);
  group.barrier();
  window.put(next, 8, new Uint8Array([group.rank, 1, 2, 3]));
  group.flush();
  window.signalAdd(next, 1, 5);
  window.signalAdd(next, 1, 2 ** 40);
  const any = [
    { flag: 0, value: 1, peer: -1 },
    { flag: 1, value: 2 ** 40 + 5, peer: (group.rank + group.size - 1) % group.size },
  ];
  note("a wait for any flag", window.waitAny(any, 10_000) === "arrived");
  note("bytes before a signal", window.data[8] === (group.rank + group.size - 1) % group.size);
  group.closeWindow(window);
  let closed = "";
  try {
    window.flag(0);
  } catch (error) {
    closed = (error as Error).name;
  }
  note("a closed window was used", closed === "GroupClosedError");
}

/** What is counted is what was sent, to whom it went. */
async function checkTraffic(group: Group, note: Note): Promise<void> {
  const { size, rank } = group;
  const window = await group.openWindow({ name: "traffic", bytes: 1000, flags: 1 });
  group.barrier();
  const before = group.traffic;
  const source = new Uint8Array(1000);
  for (let peer = 0; peer < size; peer++) {
    window.put(peer, 0, source.subarray(0, 100 + peer));
    window.signal(peer, 0, 1);
  }
  const after = group.traffic;
  const expected = { self: 0, node: 0, network: 0 };
  for (let peer = 0; peer < size; peer++) {
    const same = group.nodeOf(peer) === group.node;
    expected[peer === rank ? "self" : same ? "node" : "network"] += 100 + peer;
  }
  for (const kind of ["self", "node", "network"] as const) {
    const bytes = after[kind].bytes - before[kind].bytes;
    note(`${bytes} bytes to ${kind}, not ${expected[kind]}`, bytes === expected[kind]);
  }
  window.wait(0, 1, { awaited: "anyone" });
  group.flush();
  group.closeWindow(window);
}

/** Work is done in the order given, and events say when. */
async function checkEvents(group: Group, note: Note): Promise<void> {
  const { size } = group;
  const window = await group.openWindow({ name: "events", bytes: 8, flags: 2 * size });
  const space = openWorkspace(8);
  const values = { window, ...space, most: 0, seed: 0 };
  const events = [1, 2, 3].map((round) =>
    group.enqueue(allToAll, {}, { ...values, rounds: round }),
  );
  await events[2]?.finished();
  note(
    "an event before the last was not done",
    events.every(({ done }) => done),
  );
  note("empty rounds were wrong", wrongOf(space) === 0);
  const queued = group.enqueue(allToAll, {}, { ...values, rounds: 4 });
  // Behind what is queued, although it is called directly.
  group.run(allToAll, {}, { ...values, rounds: 5 });
  note("a run overtook what was queued", queued.done);
  group.run(allToAll, {}, { ...values, rounds: 6 });
  const later = group.enqueue(allToAll, {}, { ...values, rounds: 7 });
  later.wait();
  note("an event that was waited for", later.done && group.stream.record().done);
  group.closeWindow(window);
}

const tags = [0, 7, -3];

/** Messages of a pair and tag in order, of any size, both ways at once. */
async function checkMessages(group: Group, seed: number, note: Note): Promise<void> {
  const { size, rank } = group;
  const lengths = (from: number, to: number): number[] => {
    const random = seededRandom(seed + 97 * from + to);
    return Array.from({ length: 6 }, () => random.pick([0, 1, 15, 16, 17, 5000, 700_001]));
  };
  const fill = (from: number, i: number, length: number): Uint8Array =>
    new Uint8Array(length).fill(1 + ((from * 7 + i) % 250));
  const work: Promise<void>[] = [];
  for (let peer = 0; peer < size; peer++) {
    lengths(rank, peer).forEach((length, i) => {
      work.push(group.send(peer, tags[i % 3] as number, fill(rank, i, length)));
    });
    lengths(peer, rank).forEach((length, i) => {
      const received = group.recv(peer, tags[i % 3] as number).then((bytes) => {
        const same = Buffer.compare(bytes, fill(peer, i, length)) === 0;
        note(`message ${i} of ${length} bytes from rank ${peer}`, same);
      });
      work.push(received);
    });
  }
  await Promise.all(work);
  const next = (rank + 1) % size;
  const from = (rank + size - 1) % size;
  // Everybody sends more than a ring holds before anybody receives.
  group.sendSync(next, 1, fill(rank, 3, 300_000));
  note("a blocking message", group.recvSync(from, 1)[299_999] === fill(from, 3, 1)[0]);
}

/** Groups of some ranks have windows and barriers of their own. */
async function checkParts(group: Group, note: Note): Promise<void> {
  const part = await group.split(group.rank % 2);
  note("the size of a part", part.size === Math.ceil((group.size - (group.rank % 2)) / 2));
  note("the rank in a part", part.rank === group.rank >> 1);
  const counts = { bytes: 8, flags: 1, rounds: 10 };
  note("counts within a part", (await runOn(part, countUp, counts)) === 0);
  await part.close();
}
