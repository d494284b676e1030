// Helpers for tests and benches only: requirements that skip loudly, seeds that can be replayed,
// and the numeric differences of the original test suites. Imports nothing of the project.

export { type BenchModule, type BenchRow, formatRows, markdownRows, median } from "./bench.ts";
export { calcDiff, maxAbsDiff, rmsDiff } from "./numeric.ts";
export { hasProgram, type Requirement, requirement, sharedDir } from "./requirements.ts";
export { type Random, seededRandom, testSeed } from "./seed.ts";
export type { SoakModule, SoakOptions } from "./soak.ts";
