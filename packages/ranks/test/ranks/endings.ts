// Ranks that end badly, each in its way; those that are left say how they learned of it.

import { type Group, GroupError, type Window } from "@open-infra/ranks";
import { openWorkspace, waitForEver } from "./kernels.ts";
import { othersWaitIn } from "./others.ts";

/** How rank 1 ends, or what all do wrong. */
export interface EndingData {
  readonly ending:
    | "throws"
    | "disposes"
    | "closes"
    | "exits"
    | "mismatch"
    | "late"
    | "shape"
    | "abort"
    | "alone"
    | "uncaught"
    | "stays";
}

const never = (): Promise<never> => new Promise(() => setInterval(() => {}, 1000));

async function endBadly(group: Group, { ending }: EndingData, window: Window): Promise<unknown> {
  if (ending === "throws") throw new RangeError("rank 1 has had enough");
  if (ending === "disposes") {
    // As whoever closes what all must close together on the way out.
    await using _ = { [Symbol.asyncDispose]: async () => group.barrier() };
    throw new RangeError("rank 1 has had enough");
  }
  if (ending === "closes") {
    using _ = { [Symbol.dispose]: () => group.disposeWindows([window]) };
    throw new RangeError("rank 1 has had enough");
  }
  if (ending === "exits") {
    await othersWaitIn(group, "dispatch");
    process.exit(3);
  }
  if (ending === "alone") {
    // A wait for a message on the event loop is not seen from outside.
    await new Promise((resolve) => setTimeout(resolve, 500));
    process.exit(3);
  }
  if (ending === "uncaught")
    setTimeout(() => {
      throw new Error("nobody catches this");
    }, 1);
  if (ending === "abort") group.abort("somebody said so");
  if (ending === "late") {
    group.begin("a long computation");
    Atomics.wait(new Int32Array(new SharedArrayBuffer(4)), 0, 0, 1500);
    return "late";
  }
  if (ending === "abort") group.check();
  return never();
}

export default async function run(group: Group, data: EndingData): Promise<unknown> {
  const { ending } = data;
  if (ending === "mismatch" || ending === "shape") {
    const bytes = ending === "shape" && group.rank === 1 ? 128 : 64;
    const name = ending === "mismatch" && group.rank === 1 ? "apples" : "pears";
    await group.openWindow({ name, bytes });
    return "opened";
  }
  const window = await group.openWindow({ name: "endings", bytes: 64, flags: 2 });
  group.barrier();
  if (group.rank === 1) return endBadly(group, data, window);
  if (ending === "stays") return never();
  // Waits for the one that ends, or for another that waits for it in turn.
  const peer = group.rank === 0 ? 1 : 0;
  const values = { window, ...openWorkspace(8), rounds: peer, most: 0, seed: 0 };
  try {
    if (ending === "alone") await group.recv(1, 5);
    else await group.enqueue(waitForEver, {}, values, { operation: "dispatch" }).finished();
  } catch (error) {
    if (error instanceof GroupError && ending === "late") return describe(error);
    throw error;
  }
  return "arrived";
}

function describe({ name, peer, operation, awaited, message }: GroupError): object {
  return { name, peer, operation, awaited, message };
}
