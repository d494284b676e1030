// A launched rank of the tests: joins, passes a row around, says what it got.
import { joinFromEnvironment } from "@open-infra/ranks";
import ring from "../ranks/ring.ts";

await using group = await joinFromEnvironment();
const { sum } = (await ring(group, 20)) as { sum: number };
const links = Array.from({ length: group.size }, (_, peer) => group.linkOf(peer)).join(",");
console.log(`rank ${group.rank} of ${group.size}: ${sum} by ${links}`);
