// The one caller of kernels/ranks.c: compiles and loads it, packs blocks of words, reads layouts.

import { type NativeCode, type NativePool, NativeToolchain, viewOf } from "@open-infra/jit";
import { RanksSystemError } from "./errors.ts";

/** A block of 64-bit words for one native call; integers up to 2^53. */
export class Words {
  readonly block: BigInt64Array;

  constructor(words: readonly number[], room = 0) {
    this.block = new BigInt64Array(Math.max(words.length, room));
    for (let i = 0; i < words.length; i++) this.block[i] = BigInt(words[i] as number);
  }

  at(index: number): number {
    return Number(this.block[index]);
  }
}

/** Sizes and offsets of kernels/include/oi_ranks.h, in the order of `oi_layout`. */
const layoutNames = [
  "controlBytes",
  "slotBytes",
  "slotState",
  "slotMasked",
  "slotPid",
  "slotStartTime",
  "slotHeartbeatNs",
  "slotOperations",
  "slotSinceNs",
  "slotAwaited",
  "slotOperation",
  "controlAborted",
  "controlReported",
  "controlCulprit",
  "controlReporter",
  "controlText",
  "groupBytes",
  "groupFailure",
  "failureAwaited",
  "groupTraffic",
  "groupTimeoutNs",
  "outboxPosted",
  "outboxTaken",
  "outboxIdle",
  "outboxEntries",
  "outboxBytes",
] as const;

export type Layout = Readonly<Record<(typeof layoutNames)[number], number>>;

/** A rank's native library. One per JavaScript thread. */
export class RanksNative {
  readonly toolchain: NativeToolchain;
  readonly layout: Layout;
  readonly #code: NativeCode;
  readonly #functions = new Map<string, (block: ArrayBufferView) => number>();

  /** @throws CompilerMissingError, CompileError, CacheError */
  constructor(toolchain: NativeToolchain = new NativeToolchain()) {
    this.toolchain = toolchain;
    this.#code = toolchain.load({
      name: "ranks",
      source: new URL("../kernels/ranks.c", import.meta.url),
      entry: "oi_layout",
      constants: {},
      params: {},
      headers: ranksHeaders,
    });
    const words = new Words([], layoutNames.length);
    const count = this.call("oi_layout", words);
    if (count !== layoutNames.length) throw new Error("oi_layout and native.ts disagree");
    this.layout = Object.fromEntries(
      layoutNames.map((name, i) => [name, words.at(i)]),
    ) as unknown as Layout;
  }

  /** Calls a function of ranks.c. */
  call(symbol: string, words: Words): number {
    let native = this.#functions.get(symbol);
    if (native === undefined) {
      native = this.#code.func(symbol);
      this.#functions.set(symbol, native);
    }
    return Number(native(words.block));
  }

  /** The same for functions that return 0 or −errno. @throws RanksSystemError */
  must(what: string, symbol: string, words: Words): Words {
    const code = this.call(symbol, words);
    if (code < 0) throw new RanksSystemError(what, -code);
    return words;
  }

  /** Memory that native code owns; not to be touched after it is freed. */
  view(address: number, bytes: number): Uint8Array {
    return viewOf(address, bytes);
  }

  openPool(threads: number): NativePool {
    return this.toolchain.openPool(threads);
  }
}

/** Where oi_ranks.h lies. */
export const ranksHeaders: URL = new URL("../kernels/include/", import.meta.url);

/** A zero-terminated string as bytes that native code may read while the caller keeps them. */
export function cString(text: string, limit = 400): Uint8Array {
  return new TextEncoder().encode(`${text.slice(0, limit)}\0`);
}

/** Reads a zero-terminated string of at most `limit` bytes. */
export function readText(address: number, limit: number): string {
  const bytes = viewOf(address, limit).slice();
  const end = bytes.indexOf(0);
  return new TextDecoder().decode(bytes.subarray(0, end < 0 ? limit : end));
}
