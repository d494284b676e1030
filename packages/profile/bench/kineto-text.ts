// Text like that of PyTorch's profiler, made up: the same kinds of events in like shares, the same
// order of keys and white space, names of like lengths, an id of its own for each launch. For
// benches, at any size, without a file.

import { type Random, seededRandom } from "@open-infra/testing";

const argumentTypes = ["int", "float const*", "__nv_bfloat16*", "unsigned char const*", "bool"];

/** Names of kernels, as long as templates make them. */
function kernelNames(random: Random): string[] {
  return Array.from({ length: 90 }, (_, i) => {
    const types = Array.from({ length: random.int(8, 24) }, () => random.pick(argumentTypes));
    return `void made::up::kernel_${i}<${random.int(1, 512)}, true>(${types.join(", ")})`;
  });
}

const operators = Array.from({ length: 140 }, (_, i) => `aten::operator_${i}`);
const calls = ["cudaLaunchKernel", "cudaEventQuery", "cudaStreamWaitEvent", "cudaEventRecord"];

function cpuOperator(random: Random, id: number, ts: string): string {
  return `  {
    "ph": "X", "cat": "cpu_op", "name": "${random.pick(operators)}", "pid": 1166, "tid": 2571,
    "ts": ${ts}, "dur": ${random.int(1, 90)},
    "args": {
      "External id": ${id},"Ev Idx": ${id % 10_000}
    }
  }`;
}

function launch(random: Random, id: number, ts: string): string {
  return `  {
    "ph": "X", "cat": "cuda_runtime", "name": "${random.pick(calls)}", "pid": 1166, "tid": 1166,
    "ts": ${ts}, "dur": ${random.int(1, 30)},
    "args": {
      "External id": ${id},
      "cbid": 211, "correlation": ${id}
    }
  },
  {
    "ph": "s", "id": ${id}, "pid": 1166, "tid": 1166, "ts": ${ts},
    "cat": "ac2g", "name": "ac2g"
  }`;
}

function kernel(random: Random, names: readonly string[], id: number, ts: string): string {
  const stream = random.pick([7, 7, 7, 23, 27]);
  return `  {
    "ph": "X", "cat": "kernel", "name": "${random.pick(names)}", "pid": 0, "tid": ${stream},
    "ts": ${ts}, "dur": ${random.int(2, 4000)},
    "args": {
      "External id": ${id},
      "queued": 0, "device": 0, "context": 1,
      "stream": ${stream}, "correlation": ${id},
      "registers per thread": 31,
      "shared memory": 0,
      "blocks per SM": 31.030304,
      "warps per SM": 124.121216,
      "grid": [${random.int(1, 4096)}, 1, 1],
      "block": [128, 1, 1],
      "est. achieved occupancy %": 100
    }
  },
  {
    "ph": "f", "id": ${id}, "pid": 0, "tid": ${stream}, "ts": ${ts},
    "cat": "ac2g", "name": "ac2g", "bp": "e"
  }`;
}

/** What is made. */
export interface KinetoTextOptions {
  /** About how many bytes. */
  readonly bytes: number;
  /** Times with nanoseconds, as newer versions write, or whole microseconds. */
  readonly fractions?: boolean;
  readonly seed?: number;
}

/** A trace's text in pieces of some tens of kilobytes; the same for the same options. */
export function* kinetoText(options: KinetoTextOptions): Generator<string, void, undefined> {
  const random = seededRandom(options.seed ?? 1);
  const names = kernelNames(random);
  let now = 1_740_461_679_470_630;
  const time = (): string => {
    now += random.int(1, 12);
    return options.fractions ? `${now}.${String(random.int(0, 1000)).padStart(3, "0")}` : `${now}`;
  };
  let text = `
{
  "schemaVersion": 1,
  "distributedInfo": {"backend": "nccl", "rank": 0, "world_size": 64},
  "traceEvents": [
  {
    "name": "process_labels", "ph": "M", "ts": ${now}, "pid": 0, "tid": 0,
    "args": {
      "labels": "GPU 0"
    }
  }`;
  let written = 0;
  for (let id = 1; written + text.length < options.bytes; id++) {
    const share = random.next();
    if (share < 0.46) text += `,\n${cpuOperator(random, id, time())}`;
    else if (share < 0.87) text += `,\n${launch(random, id, time())}`;
    else text += `,\n${kernel(random, names, id, time())}`;
    if (text.length < 1 << 16) continue;
    written += text.length;
    yield text;
    text = "";
  }
  yield `${text}\n  ],\n  "traceName": "made up"\n}\n`;
}
