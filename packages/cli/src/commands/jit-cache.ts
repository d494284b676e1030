// `open-infra jit list | export | import | clear`: the cache of compiled kernels on disk.

import { clearCache, exportCache, importCache, jitCacheDir, listCache } from "@open-infra/jit";
import { type CliContext, printJson, printLine } from "../context.ts";
import { formatBytes } from "../progress.ts";

interface Flags {
  readonly json: boolean;
}

export function list(this: CliContext, flags: Flags): void {
  const entries = listCache();
  if (flags.json) {
    printJson(this, { dir: jitCacheDir(), entries });
    return;
  }
  for (const entry of entries) {
    printLine(
      this,
      [
        entry.key.slice(0, 16),
        entry.isa.padEnd(11),
        formatBytes(entry.bytes).padStart(10),
        entry.name,
      ].join("  "),
    );
  }
  const total = entries.reduce((sum, entry) => sum + entry.bytes, 0);
  printLine(this, `${entries.length} kernels, ${formatBytes(total)}, in ${jitCacheDir()}`);
}

export function exportBundle(this: CliContext, flags: Flags, file: string): void {
  const result = exportCache(file);
  if (flags.json) printJson(this, { file, ...result });
  else printLine(this, `wrote ${result.entries} kernels (${formatBytes(result.bytes)}) to ${file}`);
}

export function importBundle(this: CliContext, flags: Flags, file: string): void {
  const result = importCache(file);
  if (flags.json) printJson(this, { file, ...result });
  else printLine(this, `added ${result.added} kernels, ${result.present} were there already`);
}

export function clear(this: CliContext, flags: Flags): void {
  const removed = clearCache();
  if (flags.json) printJson(this, { removed });
  else printLine(this, `removed ${removed} kernels from ${jitCacheDir()}`);
}
