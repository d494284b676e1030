// Functions of installed libraries, through koffi, which is a dependency of the jit package.

import { createRequire } from "node:module";

/** A foreign function; pointers are typed arrays or what another function returned. */
export type ForeignFunction = (...args: readonly unknown[]) => unknown;

/** A loaded library, whose functions are found by their C declarations. */
export interface ForeignLibrary {
  func(declaration: string): ForeignFunction;
}

const koffi = createRequire(import.meta.resolve("@open-infra/jit"))("koffi") as {
  load(path: string): ForeignLibrary;
};

/** Loads a library by path, or by a name the system's loader knows. @throws if it is missing. */
export function loadLibrary(path: string): ForeignLibrary {
  return koffi.load(path);
}
