import { rmSync } from "node:fs";
import { graysort } from "../src/graysort/index.ts";

const size = Number(process.argv[2] ?? 500e6);
for (const o of [
  { engine: "radix" as const },
  { engine: "duckdb" as const },
  { engine: "radix" as const, skewed: true },
  { engine: "radix" as const },
]) {
  rmSync("/tmp/s3/jobs", { recursive: true, force: true });
  const r = await graysort({
    sizeBytes: size,
    format: "ascii",
    output: "/tmp/s3/jobs/out",
    session: { dataRoot: "/tmp/s3/jobs", jobId: "g" },
    ...o,
    onSession: (s) => {
      const t0 = performance.now();
      if (process.argv[3])
        s.listen((e) =>
          console.log(
            (performance.now() - t0).toFixed(0),
            e.type,
            e.task.node,
            e.result?.metrics.elapsedMs,
          ),
        );
    },
  });
  console.log(o, { ...r, files: r.files.length });
}
