// The one place that knows the foreign-function library. Kernels need four things of it: open a
// library, find a function, the address of memory, and a call with a block of packed arguments.

import koffi from "koffi";

/** Calls native code with the address of a block's first byte. */
export type NativeFunction = (block: ArrayBufferView) => number;

export interface NativeLibrary {
  /** A function of signature `int64_t name(void *block)`. */
  func(symbol: string): NativeFunction;
  /** The address of a symbol, to be called by native code. */
  symbol(symbol: string): number;
}

/** Loads a shared library. @throws the loader's error if it is missing or not loadable. */
export function openLibrary(path: string): NativeLibrary {
  const library = koffi.load(path);
  return {
    func: (symbol) => library.func(symbol, "int64_t", ["void *"]) as unknown as NativeFunction,
    symbol: (symbol) => Number(library.symbol(symbol, "void")),
  };
}

/** The native address of a view's first byte. Backing stores do not move; keep the view alive. */
export function addressOf(view: ArrayBufferView): number {
  return view.byteLength === 0 ? 0 : Number(koffi.address(view));
}

/**
 * Memory at a native address as bytes, without a copy. Whoever calls keeps the memory mapped for as
 * long as anything may touch the view.
 */
export function viewOf(address: number, byteLength: number): Uint8Array<ArrayBuffer> {
  return new Uint8Array(koffi.view(BigInt(address), byteLength) as ArrayBuffer);
}
