// A made-up training trace that holds together: annotations on the host, operators and launches in
// them, kernels on three streams that answer to the launches, communication beside computation. For
// benches of the analyser, at any size, without a file.

import { type Random, seededRandom } from "@open-infra/testing";

const ORIGIN_US = 1_740_461_679_470_630;

/** Phases of a layer in the order of DualPipe's overlapped chunk: name, stream, kernels. */
const phases: readonly (readonly [string, number, readonly (readonly [string, number])[]])[] = [
  [
    "combine(B)",
    27,
    [
      ["void deep_ep::internode::cached_notify<false>(int, int, int*, void**)", 900],
      ["void deep_ep::internode::dispatch<false, 8, true, 8>(int4*, float*, long*)", 3300],
    ],
  ],
  ["attn(F)", 7, many("at::native::elementwise", 60, 15)],
  ["mlp(B)", 7, many("deep_gemm::fp8_gemm_impl", 28, 170)],
  [
    "dispatch(F)",
    27,
    [
      ["void deep_ep::layout::get_dispatch_layout<256, 32, 8>(long const*)", 100],
      ["void deep_ep::internode::notify_dispatch<false, 8>(int const*, long*)", 2100],
      ["void deep_ep::internode::dispatch<false, 8, false, 8>(int4*, float*)", 4300],
    ],
  ],
  ["mlp(F)", 7, many("cuda::swiglu_forward", 20, 220)],
  ["attn(B)", 7, many("flash::FlashAttnBwd", 100, 90)],
  ["mlp(W)", 23, many("deep_gemm::fp8_wgrad_gemm_impl", 4, 700)],
  ["combine(F)", 27, [["void deep_ep::internode::combine<false, 8>(int4*, float*)", 6000]]],
];

function many(name: string, count: number, us: number): [string, number][] {
  return Array.from({ length: count }, (_, i) => [
    `void ${name}<${i % 23}, true, 128>(int4*, float const*, __nv_bfloat16*, int, int, int)`,
    us,
  ]);
}

const operators = Array.from({ length: 140 }, (_, i) => `aten::operator_${i}`);

class Writer {
  readonly random: Random;
  #correlation = 1;
  #hostUs = 0;
  /** When each stream is free. */
  readonly #freeUs = new Map<number, number>();
  text = "";

  constructor(seed: number) {
    this.random = seededRandom(seed);
  }

  layer(): void {
    for (const [name, stream, kernels] of phases) {
      const startUs = this.#hostUs;
      for (const [kernel, us] of kernels) this.#kernel(kernel, stream, us);
      this.#event("user_annotation", name, startUs, this.#hostUs - startUs, 1166, 1166, {});
      this.#hostUs += 20;
    }
    // The host waits for the device once a layer, so that queues stay bounded.
    this.#hostUs = Math.max(this.#hostUs, Math.min(...this.#freeUs.values()) - 5000);
  }

  #kernel(name: string, stream: number, us: number): void {
    const { random } = this;
    for (let i = 0; i < 5; i++) {
      const dur = random.int(1, 9);
      const args = { "External id": this.#correlation, "Ev Idx": i };
      this.#event("cpu_op", random.pick(operators), this.#hostUs, dur, 1166, 1166, args);
      this.#hostUs += dur + 1;
    }
    const correlation = this.#correlation++;
    const call = { cbid: 211, correlation };
    this.#event("cuda_runtime", "cudaLaunchKernel", this.#hostUs, 4, 1166, 1166, call);
    this.#flow("s", correlation, this.#hostUs, 1166, 1166);
    this.#hostUs += 5;
    const startUs = Math.max(this.#hostUs + 5, (this.#freeUs.get(stream) ?? 0) + random.int(0, 4));
    const dur = Math.ceil(us * (0.8 + 0.4 * random.next()));
    this.#freeUs.set(stream, startUs + dur);
    this.#event("kernel", name, startUs, dur, 0, stream, {
      ...{ "External id": correlation, device: 0, context: 1, stream, correlation },
      ...{ "registers per thread": 31, "shared memory": 0, "blocks per SM": 31.030304 },
      ...{ grid: [stream === 27 ? 20 : 112, 1, 1], block: [128, 1, 1] },
    });
    this.#flow("f", correlation, startUs, 0, stream);
  }

  #event(
    cat: string,
    name: string,
    startUs: number,
    dur: number,
    pid: number,
    tid: number,
    args: object,
  ): void {
    const event = { ph: "X", cat, name, pid, tid, ts: ORIGIN_US + startUs, dur, args };
    this.text += `,\n${JSON.stringify(event)}`;
  }

  #flow(ph: string, id: number, startUs: number, pid: number, tid: number): void {
    const event = { ph, id, pid, tid, ts: ORIGIN_US + startUs, cat: "ac2g", name: "ac2g" };
    this.text += `,\n${JSON.stringify(event)}`;
  }
}

/** About `bytes` of text, in pieces; the same for the same seed. */
export function* trainingText(bytes: number, seed = 1): Generator<string, void, undefined> {
  const writer = new Writer(seed);
  let written = 0;
  writer.text = `{"schemaVersion":1,"deviceProperties":[{"id":0,"numSms":132}],"traceEvents":[
{"ph":"M","name":"process_labels","pid":0,"tid":0,"ts":${ORIGIN_US},"args":{"labels":"GPU 0"}}`;
  while (written + writer.text.length < bytes) {
    writer.layer();
    if (writer.text.length < 1 << 16) continue;
    written += writer.text.length;
    yield writer.text;
    writer.text = "";
  }
  yield `${writer.text}\n]}\n`;
}
