// The process in which kernels run under watch: with `--mode asan` built with sanitizers, whose
// runtime scripts/sanitize.ts has loaded into it; with `--mode guard` the kernels as they are, on
// memory between forbidden pages. A fault ends the process, so each case is announced first.

import { existsSync, mkdtempSync, readdirSync, readFileSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { basename, join, resolve } from "node:path";
import { pathToFileURL } from "node:url";
import { parseArgs } from "node:util";
import {
  createDevice,
  type Device,
  JitOptionError,
  listCache,
  type Operation,
  type WarmupOptions,
} from "@open-infra/jit";
import { HostStorage } from "@open-infra/tensor";
import { guardedAllocator } from "./guarded-storage.ts";
import { uncoveredStatus } from "./sanitize.ts";
import { root } from "./source-files.ts";

type CommCases = Readonly<Record<string, () => Promise<unknown>>>;
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

/** What a package's cases of communication kernels are in. */
const commFile = "comm-cases.ts";

function caseFiles(name = "kernel-cases.ts"): string[] {
  if (values.cases !== undefined) {
    const wanted = (file: string): boolean => (basename(file) === commFile) === (name === commFile);
    return values.cases.map((file) => resolve(file)).filter(wanted);
  }
  return readdirSync(join(root, "packages"))
    .map((name) => join(root, "packages", name, "test"))
    .flatMap((dir) => {
      try {
        return readdirSync(dir).includes(name) ? [join(dir, name)] : [];
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
    return files.flatMap((file) => {
      const text = readFileSync(join(dir, file), "utf8");
      return entriesOf(text).map((entry) => `${file}: ${entry}`);
    });
  });
}

/** Kernels that a source defines. */
function entriesOf(text: string): string[] {
  const pattern = /^void (\w+)\(const params_t \*\w+, oi_ctx \*\w+\)/gm;
  return [...text.matchAll(pattern)].map((match) => match[1] as string);
}

/**
 * Communication kernels, which no device runs: groups of ranks as threads of this process. They get
 * an empty cache, and what is in it afterwards is what ran.
 */
async function runComm(ran: Set<string>): Promise<void> {
  const cache = mkdtempSync(join(tmpdir(), "open-infra-sanitize-"));
  process.env.OPEN_INFRA_JIT_CACHE_DIR = cache;
  for (const file of caseFiles(commFile)) {
    const { commCases } = (await import(pathToFileURL(file).href)) as { commCases: CommCases };
    const owner = basename(join(file, "../.."));
    for (const [name, body] of Object.entries(commCases)) {
      console.log(`case ${owner}: ${name}`);
      await body();
    }
  }
  for (const entry of listCache({ cacheDir: cache })) {
    const text = readFileSync(join(cache, entry.key, "kernel.c"), "utf8");
    const file = /^#line 1 "([\w.]+)"$/m.exec(text)?.[1];
    for (const kernel of entriesOf(text)) ran.add(`${file}: ${kernel}`);
  }
  rmSync(cache, { recursive: true, force: true });
}

/** Whether a kernel is for groups of ranks: its package lies above `ranks`. */
function isComm(kernel: string): boolean {
  const file = kernel.split(":")[0] as string;
  return readdirSync(join(root, "packages")).some((name) => {
    const path = join(root, "packages", name, "kernels", file);
    return existsSync(path) && existsSync(join(root, "packages", name, "test/comm-cases.ts"));
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
// Memory between forbidden pages is tensors'; what ranks share is theirs.
const comm = new Set(values.mode === "guard" ? allKernels().filter(isComm) : []);
if (values.mode !== "guard") await runComm(ran);
const missing =
  values.cases === undefined
    ? allKernels().filter((name) => !ran.has(name) && !comm.has(name))
    : [];
if (missing.length > 0) {
  const list = missing.map((name) => `\n  ${name}`).join("");
  console.error(`No case runs these; add one to their package's test/kernel-cases.ts:${list}`);
  process.exit(uncoveredStatus);
}
console.log(`${ran.size} kernels in ${launches} launches, nothing reported`);
