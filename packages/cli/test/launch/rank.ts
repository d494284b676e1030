// A rank of the launch tests: what it does is its first argument.
import { existsSync, writeFileSync, writeSync } from "node:fs";
import { hostname } from "node:os";
import { type Group, joinFromEnvironment } from "@open-infra/ranks";

const [what = "", who = "-1"] = process.argv.slice(2);
const rank = Number(process.env.RANK);
const isTarget = Number(who) === rank;

if (what === "environment") {
  const names = [
    ...["RANK", "LOCAL_RANK", "WORLD_SIZE", "LOCAL_WORLD_SIZE", "GROUP_RANK", "MASTER_ADDR"],
  ];
  console.log(names.map((name) => `${name}=${process.env[name]}`).join(" "));
} else if (what === "exit") {
  if (isTarget) process.exit(7);
  setInterval(() => {}, 1000);
} else if (what === "stubborn") {
  // Ignores SIGTERM, as a rank in a long native call may.
  process.on("SIGTERM", () => {});
  const ready = `${process.env.OPEN_INFRA_ERROR_FILE}`.replace(/[^/]*$/, "stubborn");
  if (isTarget) {
    // The other one must be deaf before this one ends.
    while (!existsSync(ready)) await new Promise((resolve) => setTimeout(resolve, 20));
    process.exit(3);
  }
  writeFileSync(ready, "");
  setInterval(() => {}, 1000);
} else {
  const group = await joinFromEnvironment();
  const links = Array.from({ length: group.size }, (_, peer) => group.linkOf(peer)).join(",");
  writeSync(1, `joined ${group.rank} ${process.pid} ${hostname()} by ${links}\n`);
  if (what === "throw" && isTarget) throw new TypeError("the rank's own mistake");
  if (what === "barriers") {
    for (let i = 0; i < 1e9; i++) group.barrier();
  } else if (what === "stream") await stream(group, Number(who));
  else group.barrier();
  await group.close();
}

/** Rows of a megabyte to every other rank, checked there. */
async function stream(group: Group, rounds: number): Promise<void> {
  const { rank: own, size } = group;
  const bytes = 1 << 20;
  const window = await group.openWindow({ name: "rows", bytes: bytes * size, flags: size });
  const row = new Uint8Array(bytes);
  for (let round = 1; round <= rounds; round++) {
    row.fill(own * 16 + round);
    for (let step = 1; step < size; step++) {
      const to = (own + step) % size;
      window.put(to, own * bytes, row);
      window.signal(to, own, round);
    }
    for (let from = 0; from < size; from++) {
      if (from === own) continue;
      window.wait(from, round, { peer: from, awaited: `row ${round}` });
      const got = window.data.subarray(from * bytes, (from + 1) * bytes);
      const wrong = got.findIndex((byte) => byte !== from * 16 + round);
      if (wrong >= 0) throw new Error(`row ${round} of rank ${from} is wrong at ${wrong}`);
    }
    group.flush();
    group.barrier();
  }
  group.closeWindow(window);
  writeSync(1, `rank ${own} has got ${rounds} rows of each\n`);
}
