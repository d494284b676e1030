// OpenBLAS as a peer: `cblas_sgemm` of the installed library, called through koffi.

import { type ForeignLibrary, loadLibrary } from "./foreign.ts";
import { matrices } from "./matrices.ts";
import type { PeerAdapter, Prepared } from "./peer.ts";
import type { Problem } from "./problem.ts";

const ROW_MAJOR = 101;
const NO_TRANSPOSE = 111;
const TRANSPOSE = 112;

/** The library under the names that distributions give it. */
function load(): ForeignLibrary {
  const names = ["libopenblas.so.0", "libopenblas.so", "libopenblas.dylib"];
  for (const name of names) {
    try {
      return loadLibrary(name);
    } catch {
      // The next one.
    }
  }
  throw new Error(`none of ${names.join(", ")}`);
}

/** f32; the weights are [n,k], so the second operand is transposed. */
export const openBlas: PeerAdapter = {
  name: "OpenBLAS",
  dtypes: ["f32"],
  install: "apt-get install libopenblas-dev",
  open: (threads) => {
    const library = load();
    library.func("void openblas_set_num_threads(int threads)")(threads);
    const core = library.func("const char *openblas_get_corename()")();
    const config = String(library.func("const char *openblas_get_config()")());
    const gemm = library.func(
      "void cblas_sgemm(int order, int ta, int tb, int m, int n, int k, float alpha, void *a, " +
        "int lda, void *b, int ldb, float beta, void *d, int ldd)",
    );
    return {
      version: `${/OpenBLAS ([\d.]+)/.exec(config)?.[1] ?? "?"} ${core}`,
      prepare: (problem: Problem): Prepared => {
        const { m, n, k } = problem;
        const { a, b, d } = matrices(problem);
        const call = (copy: number): void => {
          const weights = b.subarray(copy * n * k, (copy + 1) * n * k);
          gemm(ROW_MAJOR, NO_TRANSPOSE, TRANSPOSE, m, n, k, 1, a, k, weights, k, 0, d, n);
        };
        return { variants: [{ name: "plain", call }], output: () => d, free: () => {} };
      },
    };
  },
};
