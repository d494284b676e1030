// `npm run bench [-- FILTER] [--quick] [--readme]`: runs every package's bench modules, prints one
// row a case, writes bench/results/latest.json, and with --readme rewrites the tables that package
// READMEs carry between `<!-- bench:begin FILE -->` and `<!-- bench:end -->`.

import { mkdirSync, readdirSync, readFileSync, writeFileSync } from "node:fs";
import { availableParallelism, cpus, loadavg } from "node:os";
import { join } from "node:path";
import { fileURLToPath, pathToFileURL } from "node:url";
import { parseArgs } from "node:util";
import { createDevice, measureMachine } from "@open-infra/jit";
import { type BenchModule, type BenchRow, formatRows, markdownRows } from "@open-infra/testing";

const root = fileURLToPath(new URL("..", import.meta.url));
const { values, positionals } = parseArgs({
  allowPositionals: true,
  options: { quick: { type: "boolean" }, readme: { type: "boolean" } },
});

function benchFiles(): string[] {
  return readdirSync(join(root, "packages")).flatMap((name) => {
    const dir = join(root, "packages", name, "bench");
    try {
      return readdirSync(dir)
        .filter((file) => file.endsWith(".bench.ts"))
        .map((file) => `packages/${name}/bench/${file}`);
    } catch {
      return []; // A package without benches.
    }
  });
}

function updateReadme(file: string, rows: readonly BenchRow[]): void {
  const readme = join(root, file.split("/").slice(0, 2).join("/"), "README.md");
  const text = readFileSync(readme, "utf8");
  const name = file.split("/").at(-1) as string;
  const block = new RegExp(`(<!-- bench:begin ${name} -->\n)[^]*?(<!-- bench:end -->)`);
  if (!block.test(text)) return;
  writeFileSync(readme, text.replace(block, `$1${markdownRows(rows)}\n$2`));
  console.log(`updated ${readme.slice(root.length)}`);
}

using device = createDevice();
console.log(
  `${cpus()[0]?.model}, ${availableParallelism()} cores, load ${loadavg()[0]?.toFixed(2)}`,
);
console.log(device.description);
const machine = device.backend === "cpu" ? measureMachine(device) : undefined;
if (machine) console.log(machine);

const results: Record<string, readonly BenchRow[]> = {};
for (const file of benchFiles()) {
  if (positionals.length > 0 && !positionals.some((filter) => file.includes(filter))) continue;
  console.log(`\n${file}`);
  const bench = (await import(pathToFileURL(join(root, file)).href)) as BenchModule;
  const rows = await bench.run({ quick: values.quick ?? false });
  results[file] = rows;
  console.log(formatRows(rows));
  if (values.readme) updateReadme(file, rows);
}

mkdirSync(join(root, "bench/results"), { recursive: true });
const report = {
  cpu: cpus()[0]?.model,
  cores: availableParallelism(),
  device: device.description,
  machine,
  results,
};
writeFileSync(join(root, "bench/results/latest.json"), `${JSON.stringify(report, null, 2)}\n`);
