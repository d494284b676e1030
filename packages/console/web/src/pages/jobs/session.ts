// The job that is watched: its log is asked for as it grows and fed to the view of the package that
// wrote it; the page reads that. Kept while other pages are shown, but asks only while it is seen.

import { type JobEntry, type JobView, LogFeed } from "@open-infra/smallpond/live";
import { type ReadonlySignal, type Signal, signal } from "@preact/signals";

/** What the page shows of a job; a new object whenever the view has changed. */
export interface Shown {
  readonly job: string;
  readonly view: JobView;
  /** The time of the log, or of now while the job runs. */
  readonly nowMs: number;
}

const pollMs = 500;
const listMs = 3_000;

/** See the head of this file. */
export class JobsSession {
  readonly #jobs: Signal<readonly JobEntry[] | null> = signal(null);
  readonly #shown: Signal<Shown | null> = signal(null);
  readonly #problem: Signal<string | null> = signal(null);
  readonly #at: Signal<string> = signal("");
  #job = "";
  #feed = new LogFeed();
  #timer = 0;
  #listedMs = Number.NEGATIVE_INFINITY;
  #seen = false;

  get jobs(): ReadonlySignal<readonly JobEntry[] | null> {
    return this.#jobs;
  }

  get shown(): ReadonlySignal<Shown | null> {
    return this.#shown;
  }

  get problem(): ReadonlySignal<string | null> {
    return this.#problem;
  }

  /** Where the server has the jobs; "" where it has none. */
  get at(): ReadonlySignal<string> {
    return this.#at;
  }

  /** Takes what an address says: `?at=/jobs/…&job=nightly`. Another origin is never asked. */
  open(rest: string): void {
    const query = new URLSearchParams(rest.replace(/^\?/, ""));
    const at = query.get("at") ?? "";
    if (/^\/jobs\/[0-9a-f]+$/.test(at)) this.#at.value = at;
    const job = query.get("job");
    if (job !== null && job !== "") this.choose(job);
  }

  /** Shows a job of the list. */
  choose(job: string): void {
    if (job === this.#job) return;
    this.#job = job;
    this.#feed = new LogFeed();
    this.#shown.value = null;
    this.#wake();
  }

  /** The page is seen. Returns what ends that. */
  watch(): () => void {
    this.#seen = true;
    this.#wake();
    return () => {
      this.#seen = false;
      clearTimeout(this.#timer);
    };
  }

  #wake(): void {
    clearTimeout(this.#timer);
    if (this.#seen) this.#timer = setTimeout(() => void this.#turn(), 0);
  }

  async #turn(): Promise<void> {
    if (this.#at.value !== "") {
      try {
        if (performance.now() - this.#listedMs > listMs) await this.#list();
        if (this.#job !== "") await this.#read();
        this.#problem.value = null;
      } catch (error) {
        this.#problem.value = error instanceof Error ? error.message : String(error);
      }
    }
    if (this.#seen) this.#timer = setTimeout(() => void this.#turn(), pollMs);
  }

  async #list(): Promise<void> {
    const response = await ask(`${this.#at.value}/list`);
    this.#jobs.value = (await response.json()) as readonly JobEntry[];
    this.#listedMs = performance.now();
    const [first] = this.#jobs.value;
    if (this.#job === "" && first !== undefined) this.choose(first.jobId);
  }

  async #read(): Promise<void> {
    const job = this.#job;
    for (;;) {
      const query = new URLSearchParams({ job, from: String(this.#feed.bytes) });
      const response = await ask(`${this.#at.value}/log?${query}`);
      const bytes = new Uint8Array(await response.arrayBuffer());
      // Another one may have been chosen meanwhile.
      if (job !== this.#job) return;
      this.#feed.take(bytes);
      if (bytes.length === 0 || this.#feed.bytes >= Number(response.headers.get("x-log-bytes")))
        break;
    }
    const { view } = this.#feed;
    const isOver = view.state === "ended" || this.#stateOf(job) === "killed";
    this.#shown.value = { job, view, nowMs: isOver ? view.lastMs : Date.now() };
  }

  #stateOf(job: string): JobEntry["state"] | undefined {
    return this.#jobs.value?.find(({ jobId }) => jobId === job)?.state;
  }
}

async function ask(path: string): Promise<Response> {
  const response = await fetch(path);
  if (response.ok) return response;
  throw new Error(`the server answers ${response.status} for the job's log`);
}
