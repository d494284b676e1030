// oneDNN as a peer: onednn.c, compiled against the installed library, called through koffi.

import { spawnSync } from "node:child_process";
import { mkdtempSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { fileURLToPath } from "node:url";
import { findCompiler } from "@open-infra/jit";
import { type ForeignFunction, type ForeignLibrary, loadLibrary } from "./foreign.ts";
import { matrices } from "./matrices.ts";
import type { Peer, PeerAdapter, Prepared, Variant } from "./peer.ts";
import type { Problem } from "./problem.ts";

/** @throws the compiler's last line. */
function compileShim(): ForeignLibrary {
  const compiler = findCompiler();
  if (compiler === undefined) throw new Error("no C compiler");
  const dir = mkdtempSync(join(tmpdir(), "open-infra-peers-"));
  try {
    const library = join(dir, "onednn.so");
    const source = fileURLToPath(new URL("onednn.c", import.meta.url));
    const args = [...compiler.words, "-O2", "-fPIC", "-shared", "-o", library, source, "-ldnnl"];
    const run = spawnSync(compiler.path, args, { encoding: "utf8" });
    if (run.status !== 0) throw new Error(run.stderr.trim().split("\n").at(-1) ?? "cc failed");
    return loadLibrary(library);
  } finally {
    rmSync(dir, { recursive: true, force: true }); // Loaded already, so the file may go.
  }
}

class OneDnn implements Peer {
  readonly version: string;
  readonly #create: ForeignFunction;
  readonly #run: ForeignFunction;
  readonly #name: ForeignFunction;
  readonly #free: ForeignFunction;

  constructor(library: ForeignLibrary) {
    const packed = library.func("int library_version()")() as number;
    this.version = [packed / 10000, (packed / 100) % 100, packed % 100].map(Math.floor).join(".");
    this.#create = library.func(
      "void *product_create(int64_t m, int64_t n, int64_t k, int64_t copies, int bf16, " +
        "int packed, void *a, void *b, void *d)",
    );
    this.#run = library.func("int product_run(void *product, int64_t copy)");
    this.#name = library.func("const char *product_name(void *product)");
    this.#free = library.func("void product_free(void *product)");
  }

  prepare(problem: Problem): Prepared {
    const { m, n, k, copies, dtype } = problem;
    const { a, b, d } = matrices(problem);
    const products: unknown[] = [];
    const variants: Variant[] = [];
    for (const layout of ["plain", "packed"]) {
      const flags = [dtype === "bf16" ? 1 : 0, layout === "packed" ? 1 : 0];
      const product = this.#create(m, n, k, copies, ...flags, a, b, d);
      if (product === null) continue;
      products.push(product);
      const call = (copy: number): void => {
        const status = this.#run(product, copy);
        if (status !== 0) throw new Error(`oneDNN failed with status ${status}`);
      };
      variants.push({ name: `${layout}, ${this.#name(product)}`, call });
    }
    if (variants.length === 0)
      throw new Error(`oneDNN ${this.version} multiplies no ${dtype} here`);
    return {
      variants,
      output: () => d,
      free: () => {
        for (const product of products) this.#free(product);
      },
    };
  }
}

/** bf16 and f32, weights as they are or packed by the library. */
export const oneDnn: PeerAdapter = {
  name: "oneDNN",
  dtypes: ["bf16", "f32"],
  install: "apt-get install libdnnl-dev",
  open: () => new OneDnn(compileShim()),
};
