// A compiled kernel's name is the hash of everything that determines it, and of nothing else: no
// path, no time, no machine. So caches can be shared, shipped and compared.

import { createHash } from "node:crypto";

/** Raised whenever the layout of entries or the rule below changes. */
export const cacheSchema = 1;

/** What determines a compiled kernel. */
export interface KeyParts {
  /** {@link compilerIdentity} */
  readonly compiler: string;
  readonly flags: readonly string[];
  /** The complete text, headers written in. */
  readonly source: string;
}

/** 64 hexadecimal digits. */
export function kernelKey(parts: KeyParts): string {
  const content = JSON.stringify([cacheSchema, parts.compiler, parts.flags, parts.source]);
  return createHash("sha256").update(content).digest("hex");
}

export const keyPattern: RegExp = /^[0-9a-f]{64}$/;
