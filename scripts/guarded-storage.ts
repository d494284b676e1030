// Tensor memory between pages that nobody may touch: its last byte is followed, or its first byte
// preceded, by a page whose access is a fault. It finds what AddressSanitizer does not see, because
// the compiler does not instrument it: masked loads, gathers, instructions written as assembly; and
// it finds it in the very machine code that is shipped. Linux only.

import { createRequire } from "node:module";
import { HostStorage } from "@open-infra/tensor";

type Native = (...args: readonly (number | bigint)[]) => number | bigint;

const koffi = createRequire(import.meta.resolve("@open-infra/jit"))("koffi") as {
  load(path: string): { func(declaration: string): Native };
  view(address: bigint, length: number): ArrayBuffer;
};

const PAGE = 4096;
const NONE = 0;
const READ_WRITE = 3;
const PRIVATE_ANONYMOUS = 0x22;

/** Which end of the memory touches the forbidden page. */
export type GuardedEnd = "end" | "start";

/** An allocator for `HostStorage.allocate`; what is collected is unmapped. */
export function guardedAllocator(guarded: GuardedEnd): (byteLength: number) => HostStorage {
  const libc = koffi.load("libc.so.6");
  const map = libc.func(
    "int64_t mmap(int64_t address, size_t bytes, int access, int flags, int file, int64_t offset)",
  );
  const protect = libc.func("int mprotect(int64_t address, size_t bytes, int access)");
  const unmap = libc.func("int munmap(int64_t address, size_t bytes)");
  const unmapper = new FinalizationRegistry<{ readonly base: bigint; readonly bytes: number }>(
    ({ base, bytes }) => unmap(base, bytes),
  );
  return (byteLength) => {
    const inner = Math.ceil(byteLength / PAGE) * PAGE;
    const bytes = inner + 2 * PAGE;
    const base = BigInt(map(0, bytes, NONE, PRIVATE_ANONYMOUS, -1, 0));
    if (base < 0n) throw new Error(`mmap of ${bytes} bytes failed`);
    const first = base + BigInt(PAGE);
    if (inner > 0 && protect(first, inner, READ_WRITE) !== 0) throw new Error("mprotect failed");
    // Vectors of elements must be aligned to the element, which sizes are multiples of.
    const start = first + BigInt(guarded === "end" ? inner - byteLength : 0);
    const buffer = byteLength === 0 ? new ArrayBuffer(0) : koffi.view(start, byteLength);
    const storage = new HostStorage(new Uint8Array(buffer));
    unmapper.register(storage, { base, bytes });
    return storage;
  };
}
