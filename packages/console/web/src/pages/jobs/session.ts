// The job that is watched: its log is asked for as it grows and fed to the view of the package that
// wrote it; the page reads that. Kept while other pages are shown, but asks only while it is seen.

import { JobView, type LogLine } from "@open-infra/smallpond/live";
import { type ReadonlySignal, type Signal, signal } from "@preact/signals";

/** A job of the list, as the server tells it. */
export interface ListedJob {
  readonly jobId: string;
  readonly state: "running" | "ended" | "killed";
  readonly startedMs: number;
  readonly lastMs: number;
  readonly tasks: number;
  readonly done: number;
  readonly failures: number;
}

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
  readonly #jobs: Signal<readonly ListedJob[] | null> = signal(null);
  readonly #shown: Signal<Shown | null> = signal(null);
  readonly #problem: Signal<string | null> = signal(null);
  readonly #at: Signal<string> = signal("");
  #job = "";
  #view = new JobView();
  #from = 0;
  #rest = "";
  #decoder = new TextDecoder();
  #timer = 0;
  #listedMs = Number.NEGATIVE_INFINITY;
  #seen = false;

  get jobs(): ReadonlySignal<readonly ListedJob[] | null> {
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
    this.#view = new JobView();
    this.#from = 0;
    this.#rest = "";
    this.#decoder = new TextDecoder();
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
    this.#jobs.value = (await response.json()) as readonly ListedJob[];
    this.#listedMs = performance.now();
    const [first] = this.#jobs.value;
    if (this.#job === "" && first !== undefined) this.choose(first.jobId);
  }

  async #read(): Promise<void> {
    const job = this.#job;
    for (;;) {
      const query = new URLSearchParams({ job, from: String(this.#from) });
      const response = await ask(`${this.#at.value}/log?${query}`);
      const bytes = new Uint8Array(await response.arrayBuffer());
      // Another one may have been chosen meanwhile.
      if (job !== this.#job) return;
      this.#from += bytes.length;
      this.#feed(this.#decoder.decode(bytes, { stream: true }));
      if (bytes.length === 0 || this.#from >= Number(response.headers.get("x-log-bytes"))) break;
    }
    const view = this.#view;
    const isOver = view.state === "ended" || this.#stateOf(job) === "killed";
    this.#shown.value = { job, view, nowMs: isOver ? view.lastMs : Date.now() };
  }

  #stateOf(job: string): ListedJob["state"] | undefined {
    return this.#jobs.value?.find(({ jobId }) => jobId === job)?.state;
  }

  #feed(text: string): void {
    const lines = (this.#rest + text).split("\n");
    this.#rest = lines.pop() as string;
    for (const line of lines) {
      try {
        if (line !== "") this.#view.take(JSON.parse(line) as LogLine);
      } catch {
        // Half a line of a killed job.
      }
    }
  }
}

async function ask(path: string): Promise<Response> {
  const response = await fetch(path);
  if (response.ok) return response;
  throw new Error(`the server answers ${response.status} for the job's log`);
}
