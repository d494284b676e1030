// How this package starts modules of its own in threads and processes: as TypeScript where it runs
// from its sources, as JavaScript where it is installed.

/** Where a module of this package lies, and the flags of Node with which it runs. */
export function sourceArguments(): {
  readonly url: (name: string) => URL;
  readonly flags: string[];
} {
  const isSource = import.meta.url.endsWith(".ts");
  const flag = "--conditions=@open-infra/source";
  const extension = isSource ? "ts" : "js";
  return {
    url: (name) => new URL(`./${name}.${extension}`, import.meta.url),
    flags: isSource && !process.execArgv.includes(flag) ? [flag] : [],
  };
}
