// Functions over Arrow tables that the tests' jobs call by name in executors.

import { type Table, tableFromArrays } from "apache-arrow";

export function sizeOf(batch: Table): Table {
  return tableFromArrays({ n: Int32Array.of(batch.numRows) });
}
