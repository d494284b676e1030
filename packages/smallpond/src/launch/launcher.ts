// How executors get onto machines. A launcher starts one program so many times wherever its cluster
// wants, says in the cluster's words why nothing has come of it, and ends what it started. It knows
// nothing of tasks: executors report to the session by its channel.

/** What is to be started. */
export interface LaunchRequest {
  /** Program and arguments of one executor. */
  readonly command: readonly string[];
  readonly count: number;
  /** For the cluster's lists. */
  readonly name: string;
  /** Where launchers may keep scripts and output, on the shared file system. */
  readonly folder: string;
  /** Cores of one executor, where the session says them. */
  readonly cpus?: number;
  readonly memoryBytes?: number;
}

/** What was started. */
export interface Launched {
  /** In the cluster's words: `Slurm job 4711`. */
  readonly label: string;
  /** The state of things, with the end of what the cluster's program or the executors wrote. */
  describe(): Promise<string>;
  /** Resolves with the reason once nothing of it runs and nothing will. */
  readonly ended: Promise<string>;
  /** Ends all of it. */
  stop(): Promise<void>;
}

/** A way to start executors. */
export interface Launcher {
  readonly name: string;
  /** Executors, if the session does not say how many. */
  readonly count?: number;
  /** How long the first executor may take to come, a queue's waiting included. */
  readonly startTimeoutMs: number;
  /** @throws LaunchError with the cluster's own words */
  launch(request: LaunchRequest): Promise<Launched>;
}

/** A word of a command for a POSIX shell. */
export function shellWord(word: string): string {
  return /^[\w@%+=:,./-]+$/.test(word) ? word : `'${word.replaceAll("'", "'\\''")}'`;
}

/** A command for a POSIX shell. */
export function shellLine(words: readonly string[]): string {
  return words.map(shellWord).join(" ");
}
