// Ranks of which one is killed or stopped from outside, in a phase of its work.

import { spawn } from "node:child_process";
import { Worker } from "node:worker_threads";
import type { Group } from "@open-infra/ranks";
import { openWorkspace, waitForEver } from "./kernels.ts";
import { othersWaitIn } from "./others.ts";

/** What the victim is in when the signal comes. */
export type Phase =
  | "kernel"
  | "queued kernel"
  | "barrier"
  | "recv"
  | "recvSync"
  | "computing"
  | "loop";

export interface VictimData {
  readonly victim: number;
  readonly signal: "KILL" | "STOP" | "none";
  readonly phase: Phase;
}

/** What the others are in when the victim is. */
const operations: Readonly<Record<Phase, string>> = {
  kernel: "wait_for_ever",
  "queued kernel": "wait_for_ever",
  barrier: "barrier",
  recv: "",
  recvSync: "recv",
  computing: "wait_for_ever",
  loop: "wait_for_ever",
};

/** Sends this process a signal in a moment, whatever it is in by then. */
async function signalLater(group: Group, signal: string, phase: Phase): Promise<void> {
  const isSeen = operations[phase] !== "" && phase !== "barrier";
  if (isSeen) await othersWaitIn(group, operations[phase]);
  const seconds = isSeen ? 0.3 : 1;
  spawn("sh", ["-c", `sleep ${seconds}; kill -${signal} ${process.pid}`], { stdio: "ignore" });
}

export default async function run(group: Group, data: VictimData): Promise<string> {
  const { victim, phase, signal } = data;
  const window = await group.openWindow({ name: "work", bytes: 64, flags: 2 });
  const values = { window, ...openWorkspace(8), most: 0, seed: 0 };
  group.barrier();
  const isVictim = group.rank === victim;
  if (isVictim && signal !== "none") await signalLater(group, signal, phase);
  // The victim waits for rank 0 or its neighbour, everybody else for the victim.
  const peer = isVictim ? (victim + 1) % group.size : victim;
  if (isVictim && phase === "loop") for (;;);
  if (isVictim && phase === "computing") {
    group.begin("a forward pass");
    Atomics.wait(new Int32Array(new SharedArrayBuffer(4)), 0, 0, 60_000);
  }
  if (phase === "kernel") group.run(waitForEver, {}, { ...values, rounds: peer });
  if (phase === "barrier" && isVictim)
    Atomics.wait(new Int32Array(new SharedArrayBuffer(4)), 0, 0, 60_000);
  if (phase === "barrier") group.barrier();
  if (phase === "recv") await group.recv(peer, 1);
  if (phase === "recvSync") group.recvSync(peer, 1);
  await group.enqueue(waitForEver, {}, { ...values, rounds: peer }).finished();
  return "went on";
}

/** Without rank 2, which ends in the middle; for groups that go on. */
export async function shrink(group: Group): Promise<object | string> {
  await group.openWindow({ name: "kept open", bytes: 8, flags: 1 });
  group.barrier();
  if (group.rank === 2) process.exit(1);
  group.barrier();
  group.barrier();
  const texts = await group.exchange("who is left", `${group.rank}`);
  const state = group.stateOf(2);
  const live = group.liveRanks;
  return { texts, state, live, isMasked: group.isMasked(2) };
}

/** A rank that is masked although it is there: nobody waits for it, and it waits for nobody. */
export async function maskOne(group: Group): Promise<readonly string[]> {
  for (let rank = 0; rank < group.size; rank++) {
    if (rank !== group.rank && (rank === 1 || group.rank === 1)) group.setMasked(rank, true);
  }
  for (let i = 0; i < 10; i++) group.barrier();
  return group.exchange("unmasked", `${group.rank}`);
}

/** Asks for what the system does not grant. */
export async function refused(group: Group, bytes: number): Promise<void> {
  await group.openWindow({ name: "too much", bytes });
}

/** Ends at once although timers and threads of its own are left. */
export async function leavesThingsBehind(): Promise<string> {
  setInterval(() => {}, 1000);
  new Worker("setInterval(() => {}, 1000)", { eval: true });
  return "done";
}

/** Waits made longer by one rank, for the report. */
export async function slowOne(group: Group): Promise<object> {
  const window = await group.openWindow({ name: "slow", bytes: 8, flags: group.size });
  for (let round = 1; round <= 5; round++) {
    if (group.rank === 1) Atomics.wait(new Int32Array(new SharedArrayBuffer(4)), 0, 0, 20);
    for (let peer = 0; peer < group.size; peer++) window.signal(peer, group.rank, round);
    for (let peer = 0; peer < group.size; peer++)
      window.wait(peer, round, { peer, awaited: "all" });
  }
  const { slow } = await group.slowRanksOfGroup();
  group.closeWindow(window);
  return { slow: slow.map(({ rank }) => rank), text: group.slowRanks().text };
}
