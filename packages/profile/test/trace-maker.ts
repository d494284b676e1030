// Writes small traces for tests of the analyses: kernels, launches, annotations, spans of lanes, in
// whole µs. No reader is involved.

import { type EventTable, EventTableBuilder } from "@open-infra/profile/analyze";

export const GPU = 0;
export const HOST = 100;
export const MAIN = 1;
export const AUTOGRAD = 2;

export interface KernelOptions {
  readonly stream?: number;
  readonly device?: number;
  readonly correlation?: number;
  readonly grid?: number;
  readonly category?: string;
}

export class TraceMaker {
  readonly #builder = new EventTableBuilder();

  /** What ran on a stream from `start` to `end`. */
  kernel(name: string, start: number, end: number, options: KernelOptions = {}): this {
    const { stream = 7, device = GPU, correlation, grid, category = "kernel" } = options;
    this.#builder.add({
      pid: device,
      tid: stream,
      name,
      category,
      startUs: start,
      durationUs: end - start,
      stream,
      ...(correlation !== undefined && { correlation }),
      ...(grid !== undefined && { gridBlocks: grid }),
    });
    return this;
  }

  launch(correlation: number, start: number, end: number, tid = MAIN, pid = HOST): this {
    return this.call("cudaLaunchKernel", correlation, start, end, tid, pid);
  }

  call(
    name: string,
    correlation: number,
    start: number,
    end: number,
    tid = MAIN,
    pid = HOST,
  ): this {
    const at = { startUs: start, durationUs: end - start };
    this.#builder.add({ pid, tid, name, category: "cuda_runtime", ...at, correlation });
    return this;
  }

  annotation(name: string, start: number, end: number, tid = MAIN, pid = HOST): this {
    const at = { startUs: start, durationUs: end - start };
    this.#builder.add({ pid, tid, name, category: "user_annotation", ...at });
    return this;
  }

  /** How a lane of the host is called. */
  lane(tid: string | number, name: string): this {
    this.#builder.describeThread(HOST, tid, { name });
    return this;
  }

  /** A span of a lane, as our own recorder writes it: without a category. */
  span(name: string, start: number, end: number, tid: string | number = MAIN): this {
    const at = { startUs: start, durationUs: end - start };
    this.#builder.add({ pid: HOST, tid, name, category: "", ...at });
    return this;
  }

  table(metadata: Readonly<Record<string, unknown>> = {}): EventTable {
    return this.#builder.finish(metadata);
  }
}
