// A worker that is asked often and answers slowly: only the newest question matters. While one is
// being worked on, the next waits; one that waits is replaced by a newer one; and work that nobody
// wants any more is ended with its worker when it does not finish soon. What is asked is the page's
// business.

/** What a worker sends back: the answer, or why there is none. */
export type WorkerReply<Result> =
  | { readonly kind: "done"; readonly result: Result }
  | { readonly kind: "failed"; readonly parameter: string; readonly message: string };

/** The part of a Worker that matters here. */
export interface WorkerLike {
  onmessage: ((event: never) => void) | null;
  onerror: ((event: never) => void) | null;
  postMessage(request: unknown): void;
  terminate(): void;
}

/** The part of an ErrorEvent that matters here. */
export interface WorkerFailure {
  readonly message: string;
  preventDefault(): void;
}

export interface NewestWorkerOptions<Result> {
  readonly create: () => WorkerLike;
  readonly onReply: (reply: WorkerReply<Result>) => void;
  /** Told when work begins and when none is left. */
  readonly onBusy: (busy: boolean) => void;
}

/** Work that is out of date may still end by itself within this time. */
const PATIENCE_MS = 150;

/** Asks a worker; the newest request wins. */
export class NewestWorker<Request, Result> {
  readonly #options: NewestWorkerOptions<Result>;
  #worker: WorkerLike | undefined;
  #running = false;
  #waiting: Request | undefined;
  #timer: ReturnType<typeof setTimeout> | undefined;

  constructor(options: NewestWorkerOptions<Result>) {
    this.#options = options;
  }

  /** Asks; an answer to anything asked before is not told any more. */
  ask(request: Request): void {
    if (!this.#running) {
      this.#start(request);
      return;
    }
    this.#waiting = request;
    this.#timer ??= setTimeout(() => this.#giveUp(), PATIENCE_MS);
  }

  /** Ends what runs. */
  dispose(): void {
    clearTimeout(this.#timer);
    this.#timer = undefined;
    this.#worker?.terminate();
    this.#worker = undefined;
    this.#waiting = undefined;
    if (this.#running) this.#options.onBusy(false);
    this.#running = false;
  }

  #start(request: Request): void {
    this.#worker ??= this.#create();
    this.#running = true;
    this.#options.onBusy(true);
    this.#worker.postMessage(request);
  }

  #create(): WorkerLike {
    const worker = this.#options.create();
    worker.onmessage = ({ data }: { readonly data: WorkerReply<Result> }) => this.#finish(data);
    worker.onerror = (event: WorkerFailure) => {
      event.preventDefault();
      this.#worker?.terminate();
      this.#worker = undefined;
      const message = event.message || "The code that computes cannot be loaded.";
      this.#finish({ kind: "failed", parameter: "", message });
    };
    return worker;
  }

  #finish(reply: WorkerReply<Result>): void {
    clearTimeout(this.#timer);
    this.#timer = undefined;
    this.#running = false;
    const next = this.#waiting;
    this.#waiting = undefined;
    if (next !== undefined) {
      this.#start(next);
      return;
    }
    this.#options.onBusy(false);
    this.#options.onReply(reply);
  }

  #giveUp(): void {
    this.#timer = undefined;
    this.#worker?.terminate();
    this.#worker = undefined;
    const next = this.#waiting;
    this.#waiting = undefined;
    if (next !== undefined) this.#start(next);
  }
}
