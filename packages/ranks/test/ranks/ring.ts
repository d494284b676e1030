// A rank of the tests: passes rows around and counts.
import { defineCommKernel, type Group } from "@open-infra/ranks";
import { Tensor } from "@open-infra/tensor";

const ring = defineCommKernel({
  name: "ring",
  source: new URL("./ring.c", import.meta.url),
  entry: "ring_pass",
  params: { window: "ptr", rounds: "i64", out: "ptr" },
});

export default async function run(group: Group, rounds: number): Promise<object> {
  const window = await group.openWindow({ name: "ring", bytes: 64, flags: 2 });
  const out = Tensor.empty([1], "i64");
  const start = performance.now();
  const event = group.enqueue(ring, {}, { window, rounds, out });
  await event.finished();
  const us = ((performance.now() - start) * 1000) / rounds;
  for (let i = 0; i < 100; i++) group.barrier();
  const barrierUs = (performance.now() - start) * 10 - (us * rounds) / 100;
  group.closeWindow(window);
  return { sum: Number((out.raw() as BigInt64Array)[0]), us, barrierUs, traffic: group.traffic };
}
