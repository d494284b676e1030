// Turns kernel sources into loaded native code.

import { execFileSync, spawnSync } from "node:child_process";
import { createHash } from "node:crypto";
import {
  existsSync,
  mkdirSync,
  readdirSync,
  readFileSync,
  renameSync,
  rmSync,
  writeFileSync,
} from "node:fs";
import { homedir } from "node:os";
import { join } from "node:path";
import { fileURLToPath } from "node:url";
import { InfraError } from "@open-infra/tensor";
import type { WarmupOptions } from "./device.ts";
import { type NativeLibrary, openLibrary } from "./driver.ts";
import type { KernelConstants, ParamLayout } from "./operation.ts";

export interface Compiler {
  readonly path: string;
  readonly version: string;
}

export interface KernelSpec {
  readonly name: string;
  readonly source: URL;
  readonly entry: string;
  readonly constants: KernelConstants;
  readonly params: ParamLayout;
}

export class CompilerMissingError extends InfraError {
  constructor() {
    super(
      "compiler-missing",
      "No C compiler found (CC, cc, gcc, clang). Install one, e.g. 'apt-get install gcc'.",
    );
  }
}

export class CompileError extends InfraError {
  constructor(message: string) {
    super("compile", message);
  }
}

export function kernelUrl(file: string): URL {
  return new URL(`../kernels/${file}`, import.meta.url);
}

export function findCompiler(): Compiler | undefined {
  const candidates = process.env.CC ? [process.env.CC] : ["cc", "gcc", "clang"];
  for (const path of candidates) {
    const out = spawnSync(path, ["--version"], { encoding: "utf8" });
    if (out.status === 0) return { path, version: (out.stdout.split("\n")[0] ?? path).trim() };
  }
  return undefined;
}

const march: Record<string, string[]> = {
  avx512bf16: ["-march=x86-64-v4", "-mavx512bf16", "-mavx512vnni", "-mavx512vbmi", "-mf16c"],
  avx512: ["-march=x86-64-v4", "-mf16c"],
  avx2: ["-march=x86-64-v3", "-mf16c"],
  neon: [],
  scalar: [],
};

export function targetIsa(_compiler: Compiler): string {
  if (process.env.OPEN_INFRA_JIT_ISA) return process.env.OPEN_INFRA_JIT_ISA;
  if (process.arch === "arm64") return "neon";
  const flags = existsSync("/proc/cpuinfo") ? readFileSync("/proc/cpuinfo", "utf8") : "";
  if (/avx512_bf16/.test(flags)) return "avx512bf16";
  if (/avx512vl/.test(flags) && /avx512bw/.test(flags)) return "avx512";
  if (/avx2/.test(flags) && /\bfma\b/.test(flags)) return "avx2";
  return "scalar";
}

function paramStruct(params: ParamLayout): string {
  const types = { ptr: "void *", i64: "int64_t ", f64: "double " };
  const fields = Object.entries(params).map(([name, kind]) => `  ${types[kind]}${name};\n`);
  return `typedef struct {\n${fields.join("")}} params_t;\n`;
}

export class KernelCache {
  readonly #compiler: Compiler;
  readonly #isa: string;
  readonly #dir: string;
  readonly #loaded = new Map<string, NativeLibrary>();

  constructor(compiler: Compiler, isa: string, dir?: string) {
    this.#compiler = compiler;
    this.#isa = isa;
    this.#dir =
      dir ?? process.env.OPEN_INFRA_JIT_CACHE_DIR ?? join(homedir(), ".cache/open-infra/jit");
  }

  load(spec: KernelSpec): { library: NativeLibrary; address: number } {
    const path = this.#compile(spec);
    let library = this.#loaded.get(path);
    if (library === undefined) this.#loaded.set(path, (library = openLibrary(path)));
    return { library, address: library.symbol(spec.entry) };
  }

  async compileAll(specs: readonly KernelSpec[], options: WarmupOptions): Promise<void> {
    let done = 0;
    for (const spec of specs) {
      this.#compile(spec);
      done++;
      options.onProgress?.({ done, total: specs.length, compiled: done, kernel: spec.name });
    }
  }

  #compile(spec: KernelSpec): string {
    const include = fileURLToPath(kernelUrl("include"));
    const own = fileURLToPath(new URL(".", spec.source));
    let headers = "";
    for (const dir of [include, own]) {
      if (!existsSync(dir)) continue;
      for (const f of readdirSync(dir).sort())
        if (f.endsWith(".h")) headers += readFileSync(join(dir, f), "utf8");
    }
    const defines = Object.entries(spec.constants)
      .map(([k, v]) => `#define ${k} ${v}\n`)
      .join("");
    const code = `#include <stdint.h>\n${defines}${paramStruct(spec.params)}\n${readFileSync(spec.source, "utf8")}`;
    const flags = [
      "-std=gnu17",
      "-O3",
      "-fPIC",
      "-shared",
      "-fno-math-errno",
      "-fno-trapping-math",
      "-ffp-contract=fast",
      `-DOI_ISA_${this.#isa.toUpperCase()}=1`,
      ...(march[this.#isa] ?? []),
      "-Wall",
      "-Werror=implicit-function-declaration",
      "-pthread",
    ];
    const key = createHash("sha256")
      .update([this.#compiler.version, flags.join(" "), headers, code].join("\0"))
      .digest("hex")
      .slice(0, 32);
    const so = join(this.#dir, `${key}.so`);
    if (existsSync(so)) return so;
    mkdirSync(this.#dir, { recursive: true });
    const tmp = join(this.#dir, `${key}.${process.pid}.${Math.random().toString(36).slice(2)}`);
    writeFileSync(`${tmp}.c`, code);
    try {
      execFileSync(
        this.#compiler.path,
        [...flags, `-I${include}`, `-I${own}`, "-o", `${tmp}.so`, `${tmp}.c`, "-lm"],
        { stdio: ["ignore", "ignore", "pipe"], encoding: "utf8" },
      );
    } catch (error) {
      throw new CompileError(`${spec.name}: ${(error as { stderr: string }).stderr}`);
    } finally {
      rmSync(`${tmp}.c`, { force: true });
    }
    renameSync(`${tmp}.so`, so);
    return so;
  }
}
