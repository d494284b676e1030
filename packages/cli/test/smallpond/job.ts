// A script as a user writes it: `job.ts OUT` groups rows, `job.ts OUT slow` takes its time in
// twelve tasks of 300 ms or what it is told, `job.ts OUT wrong` asks for a column that is missing.

import { fromModule, init } from "@open-infra/smallpond";

const [out = "", how = "", ms = "300"] = process.argv.slice(2);
const session = await init();
try {
  const items = Array.from({ length: 120 }, (_, i) => ({ id: i, kind: `k${i % 3}` }));
  const rows = await session.fromItems(items);
  if (how === "wrong") await rows.filter("missing > 3").count();
  if (how === "slow") {
    const wait = fromModule(new URL("./steps.ts", import.meta.url), "wait", [Number(ms)]);
    const slow = rows.repartition(12, { byRows: true }).mapBatches(wait);
    process.stdout.write(`${await slow.count()} rows\n`);
  } else {
    const cut = rows.repartition(3, { hashBy: "kind" });
    const grouped = session.partialSql("SELECT kind, count(*) AS n FROM {0} GROUP BY kind", cut);
    await grouped.writeParquet(out);
    process.stdout.write(`wrote ${out}\n`);
  }
} finally {
  await session.shutdown();
}
