// The one caller of kernels/ranks.c: compiles and loads it, packs blocks of words, reads layouts.

import {
  addressOf,
  type NativeCode,
  type NativePool,
  NativeToolchain,
  viewOf,
} from "@open-infra/jit";
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
  "slotDoorbell",
  "slotState",
  "slotPid",
  "slotOperations",
  "slotWaitsSinceNs",
  "slotAwaited",
  "slotName",
  "slotOperation",
  "controlAborted",
  "controlCulprit",
  "controlReporter",
  "controlText",
  "groupBytes",
  "groupFailure",
  "failureAwaited",
  "failureOperation",
  "failureText",
  "groupTraffic",
  "groupTimeoutNs",
  "groupWaitNs",
  "groupMasked",
  "groupLinked",
  "streamCompleted",
  "streamBytes",
  "outboxPosted",
  "outboxTaken",
  "outboxIdle",
  "outboxEntries",
  "outboxBytes",
] as const;

export type Layout = Readonly<Record<(typeof layoutNames)[number], number>>;

type NativeCall = (block: ArrayBufferView) => number;

/**
 * What a rank that ends still calls. Bound from the start: the foreign-function library ends the
 * whole process if it is asked for a function while its thread is being terminated.
 */
const closingNames = [
  ...["oi_abort", "oi_group_free", "oi_group_meet", "oi_group_retire", "oi_region_drop"],
  ...["oi_set_state", "oi_stream_free", "oi_stream_wait", "oi_watch_free", "oi_window_free"],
  ...["oi_window_farewell"],
] as const;

/** Words of the block that calls reuse. */
const blockWords = 96;
const textBytes = 512;
const encoder = new TextEncoder();

/** A rank's native library. One per JavaScript thread. */
export class RanksNative {
  readonly toolchain: NativeToolchain;
  readonly layout: Layout;
  /** The reused block; {@link word} writes it, {@link invoke} passes it. */
  readonly block: Float64Array = new Float64Array(blockWords);
  readonly #halves: Int32Array = new Int32Array(this.block.buffer);
  readonly #code: NativeCode;
  readonly #functions = new Map<string, NativeCall>();
  readonly #text = new Uint8Array(textBytes);
  readonly #textAddress = addressOf(this.#text);
  readonly #names = new Map<string, { readonly bytes: Uint8Array; readonly address: number }>();
  #pauseNs = 0;

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
    for (const name of closingNames) this.#find(name);
  }

  /** Calls a function of ranks.c. */
  call(symbol: string, words: Words): number {
    return Number(this.#find(symbol)(words.block));
  }

  /** The same for functions that return 0 or −errno. @throws RanksSystemError */
  must(what: string, symbol: string, words: Words): Words {
    const code = this.call(symbol, words);
    if (code < 0) throw new RanksSystemError(what, -code);
    return words;
  }

  /** Calls with up to 96 integers in the reused block, without making a BigInt of any. */
  invoke(symbol: string, ...integers: number[]): number {
    for (let i = 0; i < integers.length; i++) this.word(i, integers[i] as number);
    return Number(this.#find(symbol)(this.block));
  }

  /** Calls with what {@link word} has written. */
  invokeBlock(symbol: string): number {
    return Number(this.#find(symbol)(this.block));
  }

  /** Writes an integer below 2^53 in magnitude into the reused block. */
  word(index: number, value: number): void {
    if (value === (value | 0)) {
      this.#halves[2 * index] = value;
      this.#halves[2 * index + 1] = value >> 31;
      return;
    }
    const high = Math.floor(value / 0x100000000);
    this.#halves[2 * index] = value - high * 0x100000000;
    this.#halves[2 * index + 1] = high;
  }

  /** A text for one call, zero-terminated; the next text overwrites it. */
  text(text: string, limit: number = textBytes - 1): number {
    const room = this.#text.subarray(0, Math.min(limit, textBytes - 1));
    this.#text[encoder.encodeInto(text, room).written] = 0;
    return this.#textAddress;
  }

  /** A name that stays where it is: of an operation, of which there are few. */
  name(text: string): number {
    let name = this.#names.get(text);
    if (name === undefined) {
      const bytes = cString(text);
      name = { bytes, address: addressOf(bytes) };
      this.#names.set(text, name);
    }
    return name.address;
  }

  /** How long a pause of a spin takes on this processor. */
  get pauseNs(): number {
    if (this.#pauseNs === 0) this.#pauseNs = this.invoke("oi_pause_ps") / 1000;
    return this.#pauseNs;
  }

  /** Memory that native code owns; not to be touched after it is freed. */
  view(address: number, bytes: number): Uint8Array {
    return viewOf(address, bytes);
  }

  openPool(threads: number): NativePool {
    return this.toolchain.openPool(threads);
  }

  #find(symbol: string): NativeCall {
    let native = this.#functions.get(symbol);
    if (native === undefined) {
      native = this.#code.func(symbol);
      this.#functions.set(symbol, native);
    }
    return native;
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
