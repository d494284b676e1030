// ring-sum.ts
import { defineCommKernel, type Group, runThreads } from "@open-infra/ranks";
import { Tensor } from "@open-infra/tensor";

const ringSum = defineCommKernel({
  name: "ring sum",
  source: new URL("./ring-sum.c", import.meta.url),
  entry: "ring_sum",
  params: { window: "ptr", value: "f64", out: "ptr" },
});

export default async function rank(group: Group, values: number[]): Promise<number> {
  const window = await group.openWindow({ name: "ring", bytes: 8, flags: 1 });
  const out = Tensor.empty([1], "f64");
  const value = values[group.rank] as number;
  const event = group.enqueue(ringSum, {}, { window, value, out });
  await event.finished(); // the rank may compute meanwhile
  group.closeWindow(window);
  return Number(out.raw()[0]);
}

if (import.meta.main) {
  const module = new URL(import.meta.url); // the default export of which runs on every rank
  console.log(await runThreads({ size: 4, module, data: [1, 2, 3, 4] })); // [10, 3, 6, 10]
}
