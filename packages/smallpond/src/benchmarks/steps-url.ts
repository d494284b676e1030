// Where executors find the functions of the benchmarks, in the sources and in the build.

/** The module with the benchmarks' functions. */
export function stepsUrl(): URL {
  const extension = import.meta.url.endsWith(".ts") ? "ts" : "js";
  return new URL(`./steps.${extension}`, import.meta.url);
}
