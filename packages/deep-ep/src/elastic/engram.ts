// A table of embeddings whose rows are spread over the ranks, in equal consecutive parts, fetched
// by index. Where windows are mapped a fetch reads the owner's memory without its doing; over
// links the owners answer within their own fetch, so there all ranks fetch together.

import { InputError } from "@open-infra/errors";
import type { CommEvent } from "@open-infra/ranks";
import { expectContiguous, Tensor } from "@open-infra/tensor";
import { BufferStateError } from "../errors.ts";
import type { ElasticCore } from "./core.ts";
import { engramKernel } from "./kernels.ts";
import { alignUp } from "./sizes.ts";

/** What a fetch gives. */
export interface Fetched {
  /** `[tokens · entries of a token, hidden]`, of the table's type. */
  readonly data: Tensor;
  /** `[tokens, entries of a token · packs]`, if the table has scales. */
  readonly sf: Tensor | undefined;
}

/** A fetch on its way: call it to wait. */
export type FetchHook = () => Fetched;

interface Table {
  readonly entries: number;
  readonly hidden: number;
  readonly dtype: "bf16" | "e4m3fn";
  readonly rowBytes: number;
  readonly entryBytes: number;
  readonly sf: Tensor | undefined;
}

/** The embedding side of an ElasticBuffer. */
export class Engram {
  readonly #core: ElasticCore;
  readonly #at: number;
  readonly #bytes: number;
  #table: Table | undefined;

  /** @param bytes At the end of the window's data. */
  constructor(core: ElasticCore, bytes: number) {
    this.#core = core;
    this.#bytes = bytes;
    this.#at = core.plan.dataAt + core.numBytes - bytes;
  }

  /** Copies this rank's part into the window; called between barriers. */
  write(storage: Tensor, sf: Tensor | undefined): void {
    const { dtype } = storage;
    if ((dtype !== "bf16" && dtype !== "e4m3fn") || storage.rank !== 2) {
      throw new InputError("storage", storage.describe(), "bf16 or e4m3fn of [entries, hidden]");
    }
    expectContiguous("engramWrite", "storage", storage);
    const [entries, hidden] = storage.shape as [number, number];
    if (entries < 1 || hidden < 1) {
      throw new InputError("storage", storage.describe(), "at least one entry of at least 1");
    }
    this.#checkScales(sf, dtype, entries);
    const rowBytes = storage.byteLength / entries;
    const entryBytes = alignUp(rowBytes, 32);
    if (entries * entryBytes > this.#bytes) {
      const got = `${entries * entryBytes} bytes`;
      throw new InputError("storage", got, `at most numCpuBytes, ${this.#bytes}`);
    }
    const to = this.#core.window.data.subarray(this.#at);
    const from = storage.bytes();
    for (let i = 0; i < entries; i++) {
      to.set(from.subarray(i * rowBytes, (i + 1) * rowBytes), i * entryBytes);
    }
    this.#table = { entries, hidden, dtype, rowBytes, entryBytes, sf };
  }

  /**
   * Begins to fetch.
   *
   * @param indices `[tokens, entries of a token]` or `[tokens]` i32, over all ranks' entries.
   */
  fetch(indices: Tensor, columnMajorSf: boolean): FetchHook {
    const table = this.#table;
    if (table === undefined) throw new BufferStateError("call engramWrite before engramFetch");
    const list = this.#checkIndices(indices, table);
    const { window, plan, linked, size } = this.#core;
    const count = indices.size;
    const room = linked ? this.#linkRoom(table, count) : { perRank: 0 };
    const data = this.#core.memory.tensor(table.dtype, [count, table.hidden], "engram");
    const values = {
      window,
      epoch: this.#core.next("engram"),
      linked: linked ? 1 : 0,
      entries: table.entries,
      entry_bytes: table.entryBytes,
      row_bytes: table.rowBytes,
      table_at: this.#at,
      asks_at: plan.dataAt,
      answers_at: plan.dataAt + alignUp(size * (64 + room.perRank * 4), 64),
      room: room.perRank,
      indices: list,
      count,
      out: data,
    };
    const run = { operation: "embedding fetch", wait: false };
    const event: CommEvent = this.#core.launch(engramKernel, values, run);
    const sf = table.sf === undefined ? undefined : gatherScales(table.sf, indices, columnMajorSf);
    return () => {
      event.wait();
      return { data, sf };
    };
  }

  #checkScales(sf: Tensor | undefined, dtype: string, entries: number): void {
    if ((dtype === "e4m3fn") !== (sf !== undefined)) {
      throw new InputError("sf", sf?.describe() ?? "none", "scales with e4m3fn, none with bf16");
    }
    if (sf === undefined) return;
    const all = entries * this.#core.size;
    const typed = sf.dtype === "f32" || sf.dtype === "i32";
    if (!typed || sf.rank !== 2 || sf.dim(0) !== all) {
      throw new InputError("sf", sf.describe(), `f32 or i32 of [${all}, packs]: of all ranks`);
    }
    expectContiguous("engramWrite", "sf", sf);
  }

  #checkIndices(indices: Tensor, table: Table): Tensor<"i32"> {
    if (indices.dtype !== "i32" || indices.rank < 1 || indices.rank > 2) {
      throw new InputError("indices", indices.describe(), "i32 of [tokens, entries] or [tokens]");
    }
    expectContiguous("engramFetch", "indices", indices);
    const all = table.entries * this.#core.size;
    const list = indices as Tensor<"i32">;
    const wrong = list.raw().findIndex((index) => index < 0 || index >= all);
    if (wrong < 0) return list;
    throw new InputError(`indices[${wrong}]`, `${list.raw()[wrong]}`, `0 to ${all - 1}`);
  }

  /** Indices that each rank may ask another for: what the rest of the data has room for. */
  #linkRoom(table: Table, count: number): { readonly perRank: number } {
    const { numBytes, size } = this.#core;
    const free = numBytes - this.#bytes - size * 128;
    const perRank = Math.floor(free / (size * (4 + table.entryBytes)));
    if (count <= perRank) return { perRank };
    const allowed = `at most ${perRank} over links, by the ${free} bytes that are not table`;
    throw new InputError("indices", `${count}`, allowed);
  }
}

/** Rows of scales by index, the entries of a token side by side. */
function gatherScales(sf: Tensor, indices: Tensor, columnMajor: boolean): Tensor {
  const tokens = indices.dim(0);
  const perToken = indices.rank === 2 ? indices.dim(1) : 1;
  const packs = sf.dim(1);
  const from = new Int32Array(sf.raw().buffer, sf.raw().byteOffset, sf.size);
  const columns = perToken * packs;
  const pitch = columnMajor ? alignUp(Math.max(tokens, 1), 4) : 0;
  const elements = columnMajor ? pitch * columns : tokens * columns;
  const flat = Tensor.empty([elements], sf.dtype);
  const to = new Int32Array(flat.raw().buffer, flat.raw().byteOffset, elements);
  const list = indices.raw() as Int32Array;
  for (let i = 0; i < list.length; i++) {
    const token = Math.floor(i / perToken);
    for (let j = 0; j < packs; j++) {
      const column = (i % perToken) * packs + j;
      const at = columnMajor ? column * pitch + token : token * columns + column;
      to[at] = from[(list[i] as number) * packs + j] as number;
    }
  }
  const strides = columnMajor ? [1, pitch] : [columns, 1];
  const { dtype } = sf;
  return new Tensor({ dtype, shape: [tokens, columns], storage: flat.storage, strides });
}
