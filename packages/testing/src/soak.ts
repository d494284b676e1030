// Long random runs that prove what a test's slice only samples: `packages/*/test/soak/*.soak.ts`,
// run by `npm run soak`.

/** How long and from which seed. */
export interface SoakOptions {
  /** Everything random of the run comes from it, and every failure's message names it. */
  readonly seed: number;
  /** The run ends after the round in which this much time is over. */
  readonly minutes: number;
  /** A line of progress. */
  log(line: string): void;
}

/** What a soak module exports. */
export interface SoakModule {
  /** Rejects at the first violation. */
  soak(options: SoakOptions): Promise<void>;
}
