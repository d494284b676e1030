// Kernels of the contract suite, and the memory they work on.

import { type CommKernel, defineCommKernel, type Group, type Window } from "@open-infra/ranks";
import { Tensor } from "@open-infra/tensor";

const params = {
  window: "ptr",
  wrong: "ptr",
  staging: "ptr",
  rounds: "i64",
  most: "i64",
  seed: "i64",
} as const;

const make = (entry: string): CommKernel<typeof params> =>
  defineCommKernel({
    name: entry,
    source: new URL("./exchange.c", import.meta.url),
    entry,
    params,
  });

export const allToAll: CommKernel<typeof params> = make("all_to_all");
export const inOrder: CommKernel<typeof params> = make("in_order");
export const countUp: CommKernel<typeof params> = make("count_up");
export const waitForEver: CommKernel<typeof params> = make("wait_for_ever");

/** What a kernel of this file runs on. */
export interface Workspace {
  readonly wrong: Tensor<"i64">;
  readonly staging: Tensor<"u8">;
}

export function openWorkspace(bytes: number): Workspace {
  const wrong = Tensor.empty([1], "i64");
  wrong.raw().fill(0n as never);
  return { wrong, staging: Tensor.empty([bytes], "u8") };
}

/** How many things a kernel found wrong. */
export function wrongOf({ wrong }: Workspace): number {
  return Number((wrong.raw() as BigInt64Array)[0]);
}

/** Runs a kernel on a window of its own; gives how many things it found wrong. */
export async function runOn(
  group: Group,
  kernel: CommKernel<typeof params>,
  shape: { bytes: number; flags: number; rounds: number; most?: number; seed?: number },
): Promise<number> {
  const { bytes, flags, rounds, most = 0, seed = 0 } = shape;
  const window: Window = await group.openWindow({ name: kernel.name, bytes, flags });
  const space = openWorkspace(Math.max(bytes, 8));
  group.run(kernel, {}, { window, ...space, rounds, most, seed });
  group.closeWindow(window);
  return wrongOf(space);
}
