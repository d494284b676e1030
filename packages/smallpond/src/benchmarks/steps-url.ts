// Where executors find the functions of the benchmarks.

import { ownModule } from "../own-module.ts";

/** The module with the benchmarks' functions. */
export const stepsUrl: URL = ownModule("./steps", import.meta.url);
