// Devices: launching, threads, scratch, warm-up, disposal, and every way a launch can be refused.

import { readdirSync, readFileSync } from "node:fs";
import { join } from "node:path";
import { Worker } from "node:worker_threads";
import { TraceRecorder } from "@open-infra/profile";
import { StorageError, Tensor } from "@open-infra/tensor";
import { requirement } from "@open-infra/testing";
import { afterEach, describe, expect, it } from "vitest";
import { listCache } from "../src/admin.ts";
import { createDevice } from "../src/create-device.ts";
import type { Device } from "../src/device.ts";
import {
  CompilerMissingError,
  DeviceError,
  JitOptionError,
  UnsupportedError,
} from "../src/errors.ts";
import { defineKernel, type Operation } from "../src/operation.ts";
import { needsCompiler, tempDir, until } from "./helpers.ts";

interface ScaleArgs {
  readonly x: Tensor<"f32">;
  readonly out: Tensor<"f32">;
  readonly factor: number;
  readonly seen?: Tensor<"i32">;
  readonly threads?: number;
  readonly variant?: number;
}

const source = new URL("kernels/spans.c", import.meta.url);
const params = { x: "ptr", out: "ptr", seen: "ptr", n: "i64", factor: "f64" } as const;

const scale: Operation<ScaleArgs> = {
  name: "scale",
  check: () => {},
  reference: ({ x, out, factor }) => out.raw().set(x.raw().map((value) => value * factor)),
  kernels: {
    cpu: defineKernel({
      language: "c",
      source,
      entry: "scale",
      params,
      constants: ({ variant }: ScaleArgs) => ({ VARIANT: variant ?? 0 }),
      pack: ({ x, out, factor, seen }) => ({ x, out, seen: seen ?? null, n: x.size, factor }),
      threads: ({ threads }, target) => threads ?? target.threads,
    }),
  },
  work: ({ x }) => ({ flops: x.size, bytes: x.size * 8 }),
};

interface MeetArgs {
  readonly slots: Tensor<"i64">;
  readonly sums: Tensor<"i64">;
  readonly rounds: number;
  readonly scratchBytes: number;
}

const meet: Operation<MeetArgs> = {
  name: "meet",
  check: () => {},
  reference: () => {},
  kernels: {
    cpu: defineKernel({
      language: "c",
      source,
      entry: "meet",
      params,
      constants: () => ({}),
      pack: ({ slots, sums, rounds, scratchBytes }: MeetArgs) => ({
        x: sums,
        out: slots,
        seen: null,
        n: scratchBytes,
        factor: rounds,
      }),
      scratchBytes: ({ scratchBytes }) => scratchBytes,
    }),
  },
};

const ones = (n: number): Tensor<"f32"> => Tensor.from(new Float32Array(n).fill(1), [n], "f32");

function runScale(device: Device, factor: number, n = 1000): readonly number[] {
  const out = Tensor.empty([n], "f32");
  device.run(scale, { x: ones(n), out, factor });
  return [...new Set(out.raw())];
}

const cacheDir = tempDir();

describe.skipIf(requirement("cpu device", needsCompiler))("cpu device", () => {
  it("runs on as many threads as asked and no more than it has", () => {
    using device = createDevice({ backend: "cpu", threads: 3, cacheDir });
    expect(device.description).toMatch(/^cpu \(\w+, 3 threads, .*version/);
    for (const [threads, used] of [
      [1, 1],
      [2, 2],
      [3, 3],
      [64, 3],
      [0, 1],
    ] as const) {
      const seen = Tensor.empty([64], "i32");
      const out = Tensor.empty([100_000], "f32");
      device.run(scale, { x: ones(100_000), out, factor: 2.5, seen, threads });
      expect(new Set(out.raw())).toEqual(new Set([2.5]));
      expect([...seen.raw().subarray(0, 4)]).toEqual(
        [0, 1, 2, 3].map((tid) => (tid < used ? used : 0)),
      );
    }
  });

  it("gives barriers, and scratch that grows", () => {
    using device = createDevice({ backend: "cpu", threads: 4, cacheDir });
    for (const scratchBytes of [64, 100_000, 1 << 20, 64]) {
      const sums = Tensor.empty([32], "i64");
      device.run(meet, { slots: Tensor.empty([32], "i64"), sums, rounds: 200, scratchBytes });
      // Each round adds 0 + 1 + 2 + 3 and four times the round's number.
      const want = BigInt(200 * 6 + (4 * (199 * 200)) / 2);
      for (let tid = 0; tid < 4; tid++) expect(sums.raw()[tid * 8]).toBe(want);
    }
  });

  it("says so when there is no memory for scratch, and goes on", () => {
    using device = createDevice({ backend: "cpu", threads: 2, cacheDir });
    const args = { slots: Tensor.empty([32], "i64"), sums: Tensor.empty([32], "i64"), rounds: 0 };
    const run = (): void => device.run(meet, { ...args, scratchBytes: 2 ** 50 });
    expect(run).toThrow(DeviceError);
    expect(run).toThrow(/meet: no memory for 1125899906842624 bytes of scratch on each of 2/);
    expect(runScale(device, 2)).toEqual([2]);
  });

  it("stands beside other devices, here and in other threads", async () => {
    using a = createDevice({ backend: "cpu", threads: 2, cacheDir });
    using b = createDevice({ backend: "cpu", threads: 3, cacheDir });
    const program = new URL("device-worker.ts", import.meta.url);
    const workers = [1, 2, 3].map(
      (factor) => new Worker(program, { workerData: { cacheDir, factor } }),
    );
    const results = Promise.all(
      workers.map(
        (w) => new Promise((resolve, reject) => w.on("message", resolve).on("error", reject)),
      ),
    );
    for (let i = 0; i < 200; i++) {
      expect(runScale(a, i)).toEqual([i]);
      expect(runScale(b, -i)[0]).toBeCloseTo(-i);
    }
    expect(await results).toEqual([1, 2, 3]);
  });

  it("lets its threads sleep when there is nothing to do", async () => {
    if (process.platform !== "linux") return;
    using device = createDevice({ backend: "cpu", threads: 4, cacheDir });
    runScale(device, 2);
    const states = (): string[] =>
      readdirSync("/proc/self/task")
        .map((id) => readFileSync(`/proc/self/task/${id}/stat`, "utf8"))
        .filter((stat) => stat.includes("(oi-pool)"))
        .map((stat) => stat.slice(stat.lastIndexOf(")") + 2)[0] as string);
    expect(states()).toHaveLength(3);
    await until("the pool sleeps", () => states().join("") === "SSS");
    expect(runScale(device, 3)).toEqual([3]);
  });

  it("can be disposed twice and not used after", async () => {
    const device = createDevice({ backend: "cpu", threads: 2, cacheDir });
    device[Symbol.dispose]();
    device[Symbol.dispose]();
    expect(() => runScale(device, 1)).toThrow(/scale: the device was disposed/);
    await expect(device.warmup(() => {})).rejects.toThrow(DeviceError);
  });

  it("refuses tensors whose memory is gone", () => {
    using device = createDevice({ backend: "cpu", threads: 1, cacheDir });
    const x = Tensor.from([1, 2], [2], "f32", "gone");
    const out = Tensor.empty([2], "f32");
    device.run(scale, { x, out, factor: 1 });
    x[Symbol.dispose]();
    const run = (): void => device.run(scale, { x, out, factor: 1 });
    expect(run).toThrow(StorageError);
    expect(run).toThrow(/scale: gone f32\[2\] was used after its memory was disposed/);
  });

  it("refuses parameters that are not what the layout says", () => {
    using device = createDevice({ backend: "cpu", threads: 1, cacheDir });
    const out = Tensor.empty([1], "f32");
    const pack = (change: object): (() => void) => {
      const kernel = scale.kernels.cpu as NonNullable<typeof scale.kernels.cpu>;
      const packed = { x: out, out, seen: null, n: 1, factor: 1, ...change };
      const cpu = { ...kernel, pack: () => packed as never };
      return () => device.run({ ...scale, kernels: { cpu } }, { x: out, out, factor: 1 });
    };
    expect(pack({ n: 1.5 })).toThrow(/scale: parameter n is 1.5; expected an integer/);
    expect(pack({ n: Number.NaN })).toThrow(/parameter n is NaN/);
    expect(pack({ factor: undefined })).toThrow(/parameter factor is undefined; expected a number/);
    expect(pack({ x: undefined })).toThrow(/parameter x is undefined; expected a tensor or null/);
    expect(pack({ x: 4 })).toThrow(/parameter x is 4/);
  });

  it("says why it cannot run something", () => {
    using device = createDevice({ backend: "cpu", threads: 1, cacheDir });
    const args = { x: ones(1), out: ones(1), factor: 1 };
    const none = { ...scale, kernels: {} };
    expect(device.supports(none, args)).toBe("no cpu kernel for scale");
    expect(() => device.run(none, args)).toThrow(UnsupportedError);
    const small = { ...scale, unsupported: () => "x is too small" };
    expect(() => device.run(small, args)).toThrow(
      "scale cannot run on backend 'cpu': x is too small",
    );
  });

  it("warms up without computing, then compiles nothing", async () => {
    const dir = tempDir();
    using device = createDevice({ backend: "cpu", threads: 2, cacheDir: dir });
    const out = Tensor.empty([4], "f32");
    const body = (): void => {
      for (const variant of [1, 2, 1]) device.run(scale, { x: ones(4), out, factor: 2, variant });
    };
    const seen: string[] = [];
    await device.warmup(body, {
      onProgress: ({ done, total, compiled, kernel }) =>
        seen.push(`${done}/${total} ${compiled} ${kernel}`),
    });
    expect([...out.raw()]).toEqual([0, 0, 0, 0]);
    expect(seen.at(-1)).toMatch(/^2\/2 2 scale\|VARIANT=[12]$/);
    const before = listCache({ cacheDir: dir }).length;
    body();
    expect([...out.raw()]).toEqual([2, 2, 2, 2]);
    expect(listCache({ cacheDir: dir })).toHaveLength(before);
    const again: number[] = [];
    await device.warmup(body, { onProgress: ({ compiled }) => again.push(compiled) });
    expect(again).toEqual([0, 0]);
    await expect(device.warmup(async () => {})).rejects.toThrow(/must not be asynchronous/);
    await expect(device.warmup(body, { signal: AbortSignal.abort() })).rejects.toThrow(/abort/i);
    expect(runScale(device, 3)).toEqual([3]);
  });

  it("records launches", () => {
    const recorder = new TraceRecorder();
    using device = createDevice({ backend: "cpu", threads: 1, cacheDir, recorder });
    runScale(device, 2, 10);
    const span = recorder.events.find((event) => event.name === "scale");
    expect(span).toMatchObject({ ph: "X", args: { kernel: "scale|VARIANT=0", flops: 10 } });
  });

  it("refuses options that make no sense", () => {
    for (const threads of [0, -1, 1.5, Number.NaN, 5000]) {
      expect(() => createDevice({ backend: "cpu", threads, cacheDir })).toThrow(JitOptionError);
    }
    expect(() => createDevice({ backend: "cpu", isa: "mmx", cacheDir })).toThrow(/'mmx'/);
    const cuda = { backend: "cuda" } as unknown as { backend: "cpu" };
    expect(() => createDevice(cuda)).toThrow(/backend is 'cuda'; expected auto, cpu or reference/);
  });

  it("asks for huge pages where there are any", () => {
    using device = createDevice({ backend: "cpu", threads: 1, cacheDir });
    const advised = device.adviseHuge?.(Tensor.empty([8 << 20], "u8")) ?? 0;
    expect(advised % (2 << 20)).toBe(0);
    expect(advised).toBeLessThanOrEqual(8 << 20);
    expect(device.adviseHuge?.(Tensor.empty([100], "u8"))).toBe(0);
  });
});

describe("without a compiler", () => {
  const before = process.env.CC;
  afterEach(() => {
    if (before === undefined) delete process.env.CC;
    else process.env.CC = before;
  });

  it("fails where C was asked for, and says how to get a compiler", () => {
    process.env.CC = join(cacheDir, "no-such-cc");
    expect(() => createDevice({ backend: "cpu" })).toThrow(CompilerMissingError);
    expect(() => createDevice({ backend: "cpu" })).toThrow(
      /no-such-cc: not found.*apt-get install gcc.*dnf install gcc.*xcode-select --install/,
    );
    process.env.CC = process.execPath;
    expect(() => createDevice({ backend: "cpu" })).toThrow(CompilerMissingError);
  });

  it("runs the reference instead, and says so once", async () => {
    process.env.CC = join(cacheDir, "no-such-cc");
    const said: string[] = [];
    using device = createDevice({ onFallback: (reason) => said.push(reason) });
    expect(runScale(device, 4)).toEqual([4]);
    expect(runScale(device, 5)).toEqual([5]);
    expect(said).toHaveLength(1);
    expect(said[0]).toMatch(/No C compiler found.*reference backend, which is slow/);
    const out = Tensor.empty([1], "f32");
    await device.warmup(() => device.run(scale, { x: ones(1), out, factor: 2 }));
    expect(out.raw()[0]).toBe(0);
    await expect(device.warmup(async () => {})).rejects.toThrow(DeviceError);
    device[Symbol.dispose]();
    expect(() => runScale(device, 1)).toThrow(/disposed/);
  });
});
