// `npm run soak [-- FILTER] [--minutes N] [--seed N]`: every package's long random runs, one after
// another, each for so many minutes. A failure prints the command that replays it and ends with 1,
// after the others have run.

import { readdirSync } from "node:fs";
import { join } from "node:path";
import { fileURLToPath, pathToFileURL } from "node:url";
import { parseArgs } from "node:util";
import type { SoakModule } from "@open-infra/testing";

const root = fileURLToPath(new URL("..", import.meta.url));
const { values, positionals } = parseArgs({
  allowPositionals: true,
  options: { minutes: { type: "string", default: "5" }, seed: { type: "string" } },
});

function positive(flag: string, text: string): number {
  const value = Number(text);
  if (Number.isFinite(value) && value > 0) return value;
  console.error(`--${flag} is ${text}; expected a number above 0`);
  process.exit(2);
}

function soakFiles(): string[] {
  const files = readdirSync(join(root, "packages"), { withFileTypes: true }).flatMap(({ name }) => {
    try {
      const dir = join(root, "packages", name, "test/soak");
      return readdirSync(dir).map((file) => `packages/${name}/test/soak/${file}`);
    } catch {
      return []; // A package without long runs.
    }
  });
  const wanted = (file: string): boolean =>
    positionals.length === 0 || positionals.some((filter) => file.includes(filter));
  return files.filter((file) => file.endsWith(".soak.ts") && wanted(file));
}

const minutes = positive("minutes", values.minutes);
const seed = Math.floor(positive("seed", values.seed ?? `${1 + (Date.now() % 1_000_000_000)}`));
const files = soakFiles();
if (files.length === 0) {
  console.error(`no soak run matches ${positionals.join(" ")}`);
  process.exit(2);
}
for (const file of files) {
  console.log(`${file}: ${minutes} min, seed ${seed}`);
  try {
    const module = (await import(pathToFileURL(join(root, file)).href)) as SoakModule;
    await module.soak({ seed, minutes, log: (line) => console.log(`  ${line}`) });
    console.log("  held");
  } catch (error) {
    process.exitCode = 1;
    console.error(error);
    console.error(`  replay: npm run soak -- ${file} --minutes ${minutes} --seed ${seed}`);
  }
}
