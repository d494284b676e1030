// Small calls of this package's kernels, for the sanitizers (scripts/sanitize.ts).

import type { Device } from "@open-infra/jit";
import { Tensor } from "@open-infra/tensor";
import { seededRandom } from "@open-infra/testing";
import { BINS, collectBins, scanLogits } from "../src/logits-ops.ts";

const random = seededRandom(7);

/** A scan, and then every bin of every row that it could use. */
function bins(device: Device): void {
  for (const vocab of [1, 17, 100, 4097]) {
    const values = Array.from({ length: 3 * vocab }, () => random.normal() * 4);
    values[0] = Number.NaN;
    const logits = Tensor.from(values, [3, vocab], "f32");
    const jobs = 4;
    const scan = {
      logits,
      rows: Tensor.from([0, 1, 2, 1], [jobs], "i32"),
      scales: Tensor.from([1, 1, 0.5, 0], [jobs], "f32"),
      maxima: Tensor.empty([jobs], "f32"),
      heads: Tensor.empty([jobs, 2], "i32"),
      counts: Tensor.empty([jobs, BINS], "i32"),
      masses: Tensor.empty([jobs, BINS], "f32"),
    };
    device.run(scanLogits, scan);
    for (const job of [1, 2]) {
      const counts = scan.counts.select(0, job).raw() as Int32Array;
      const count = counts.reduce((a, b) => a + b, 0);
      device.run(collectBins, {
        logits: logits.select(0, job),
        maximum: scan.maxima.raw()[job] as number,
        scale: scan.scales.raw()[job] as number,
        first: 0,
        last: BINS - 1,
        indices: Tensor.empty([count], "i32"),
      });
    }
  }
}

/** Calls by name. */
export const kernelCases: Readonly<Record<string, (device: Device) => void>> = { bins };
