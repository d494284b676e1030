// A rank of the launch tests: what it does is its first argument.
import { writeSync } from "node:fs";
import { hostname } from "node:os";
import { joinFromEnvironment } from "@open-infra/ranks";

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
  if (isTarget) setTimeout(() => process.exit(3), 500);
  setInterval(() => {}, 1000);
} else {
  const group = await joinFromEnvironment();
  writeSync(1, `joined ${group.rank} ${process.pid} ${hostname()}\n`);
  if (what === "throw" && isTarget) throw new TypeError("the rank's own mistake");
  if (what === "barriers") {
    for (let i = 0; i < 1e9; i++) group.barrier();
  } else group.barrier();
  await group.close();
}
