// The process in which kernels run under watch: with `--mode asan` built with sanitizers, whose
// runtime scripts/sanitize.ts has loaded into it; with `--mode guard` the kernels as they are, on
// memory between forbidden pages. A fault ends the process, so each case is announced first.

import { readdirSync, readFileSync } from "node:fs";
import { basename, join, resolve } from "node:path";
import { pathToFileURL } from "node:url";
import { parseArgs } from "node:util";
import {
  createDevice,
  type Device,
  JitOptionError,
  type Operation,
  type WarmupOptions,
} from "@open-infra/jit";
import { HostStorage } from "@open-infra/tensor";
import { guardedAllocator } from "./guarded-storage.ts";
import { uncoveredStatus } from "./sanitize.ts";
import { root } from "./source-files.ts";

type Cases = Readonly<Record<string, (device: Device) => void>>;

const { values } = parseArgs({
  options: { mode: { type: "string" }, cases: { type: "string", multiple: true } },
});

/** Writes down which kernels run. */
class Watched implements Device {
  readonly #inner: Device;
  readonly ran: Set<string>;
  launches = 0;

  constructor(inner: Device, ran: Set<string>) {
    this.#inner = inner;
    this.ran = ran;
  }

  get backend(): Device["backend"] {
    return this.#inner.backend;
  }
  get description(): string {
    return this.#inner.description;
  }
  get threads(): number {
    return this.#inner.threads;
  }

  run<A>(operation: Operation<A>, args: A): void {
    const kernel = operation.kernels.cpu;
    if (kernel !== undefined) this.ran.add(`${basename(kernel.source.pathname)}: ${kernel.entry}`);
    this.launches++;
    this.#inner.run(operation, args);
  }

  supports<A>(operation: Operation<A>, args: A): true | string {
    return this.#inner.supports(operation, args);
  }

  warmup(body: () => void, options?: WarmupOptions): Promise<void> {
    return this.#inner.warmup(body, options);
  }

  [Symbol.dispose](): void {
    this.#inner[Symbol.dispose]();
  }
}

function caseFiles(): string[] {
  if (values.cases !== undefined) return values.cases.map((file) => resolve(file));
  return readdirSync(join(root, "packages"))
    .map((name) => join(root, "packages", name, "test"))
    .flatMap((dir) => {
      try {
        const found = readdirSync(dir).includes("kernel-cases.ts");
        return found ? [join(dir, "kernel-cases.ts")] : [];
      } catch {
        return []; // A package without tests.
      }
    });
}

/** Every kernel's entry in the repository, by file; the jit's own only measure or launch. */
function allKernels(): string[] {
  const packages = readdirSync(join(root, "packages")).filter((name) => name !== "jit");
  return packages.flatMap((name) => {
    const dir = join(root, "packages", name, "kernels");
    let files: string[] = [];
    try {
      files = readdirSync(dir).filter((file) => file.endsWith(".c"));
    } catch {
      return []; // A package without kernels.
    }
    return files.flatMap((file) =>
      readFileSync(join(dir, file), "utf8")
        .matchAll(/^void (\w+)\(const params_t \*\w+, oi_ctx \*\w+\)/gm)
        .map((match) => `${file}: ${match[1]}`)
        .toArray(),
    );
  });
}

/** The machine's best instruction set, and others whose vectors have other widths. */
function devices(): Device[] {
  const narrower = process.arch === "x64" ? ["avx2"] : [];
  if (values.mode === "guard" && process.arch === "x64") narrower.push("scalar");
  return [undefined, ...narrower].flatMap((isa) => {
    try {
      return [createDevice({ backend: "cpu", threads: 2, ...(isa && { isa }) })];
    } catch (error) {
      if (error instanceof JitOptionError && isa !== undefined) return []; // Not on this machine.
      throw error;
    }
  });
}

async function runAll(device: Watched, cases: ReadonlyMap<string, Cases[string]>): Promise<void> {
  const compiled = { count: 0 };
  await device.warmup(
    () => {
      for (const body of cases.values()) body(device);
    },
    { onProgress: (progress) => (compiled.count = progress.compiled) },
  );
  console.log(`${device.description}: ${cases.size} cases, ${compiled.count} kernels compiled`);
  for (const [name, body] of cases) {
    console.log(`case ${name}`);
    body(device);
  }
}

const cases = new Map<string, Cases[string]>();
for (const file of caseFiles()) {
  const { kernelCases } = (await import(pathToFileURL(file).href)) as { kernelCases: Cases };
  const owner = basename(join(file, "../.."));
  for (const [name, body] of Object.entries(kernelCases)) cases.set(`${owner}: ${name}`, body);
}
const ran = new Set<string>();
let launches = 0;
const allocators =
  values.mode === "guard"
    ? [guardedAllocator("end"), guardedAllocator("start")]
    : [HostStorage.allocate];
for (const allocate of allocators) {
  HostStorage.allocate = allocate;
  for (const inner of devices()) {
    using device = new Watched(inner, ran);
    await runAll(device, cases);
    launches += device.launches;
  }
}
const missing = values.cases === undefined ? allKernels().filter((name) => !ran.has(name)) : [];
if (missing.length > 0) {
  const list = missing.map((name) => `\n  ${name}`).join("");
  console.error(`No case runs these; add one to their package's test/kernel-cases.ts:${list}`);
  process.exit(uncoveredStatus);
}
console.log(`${ran.size} kernels in ${launches} launches, nothing reported`);
