// Memory that ranks of one host share. It has no name: the maker's process holds it by a file
// descriptor, other processes map it through that, threads of the same process use its address. So
// nothing can be left behind, whoever is killed.

import { readlinkSync } from "node:fs";
import { viewOf } from "@open-infra/jit";
import { RanksSystemError } from "./errors.ts";
import { type RanksNative, Words } from "./native.ts";

/** How others find a region; plain data for the rendezvous. */
export interface RegionName {
  readonly pid: number;
  readonly fd: number;
  /** In the maker's process. */
  readonly address: number;
  readonly bytes: number;
  /** Of the file behind it, so that a descriptor that was used again is not mistaken for it. */
  readonly inode: number;
}

/** A mapped region. */
export class Region implements Disposable {
  readonly address: number;
  readonly bytes: number;
  readonly #native: RanksNative;
  readonly #handle: number;
  readonly #name: RegionName;
  #view: Uint8Array | undefined;
  #open = true;

  private constructor(native: RanksNative, name: RegionName, address: number, handle: number) {
    this.#native = native;
    this.address = address;
    this.bytes = name.bytes;
    this.#handle = handle;
    this.#name = name;
  }

  /** Zeroed memory of at least one byte. @throws RanksSystemError if it is not granted. */
  static create(native: RanksNative, atLeast: number): Region {
    const bytes = Math.max(atLeast, 1);
    const what = `making ${bytes} bytes of shared memory`;
    const words = native.must(what, "oi_region_create", new Words([bytes], 4));
    const [address, fd, inode] = [words.at(0), words.at(2), words.at(3)];
    const name = { pid: process.pid, fd, address, bytes, inode };
    return new Region(native, name, address, words.at(1));
  }

  /** Another rank's region. @throws RanksSystemError */
  static open(native: RanksNative, name: RegionName): Region {
    const { pid, fd, address, bytes, inode } = name;
    if (pid === process.pid) {
      const words = new Words([address, inode]);
      if (native.call("oi_region_retain", words) === 0) {
        return new Region(native, name, address, words.at(1));
      }
    }
    const words = new Words([bytes, pid, fd, inode]);
    const code = native.call("oi_region_map", words);
    if (code < 0) {
      const what = `mapping ${bytes} bytes of process ${pid} through /proc/${pid}/fd/${fd}`;
      throw new RanksSystemError(what, -code, { advice: mapAdvice(pid, -code) });
    }
    return new Region(native, name, words.at(0), words.at(1));
  }

  /** For the rendezvous. */
  get name(): RegionName {
    return this.#name;
  }

  /** All of it as bytes; not to be touched after disposal. */
  view(): Uint8Array {
    this.#view ??= viewOf(this.address, this.bytes);
    return this.#view;
  }

  [Symbol.dispose](): void {
    if (!this.#open) return;
    this.#open = false;
    this.#native.invoke("oi_region_drop", this.#handle);
  }
}

const noEntry = 2;
const accessDenied = 13;
const stale = 116;

/** What may be done about a region of another process that cannot be mapped. */
function mapAdvice(pid: number, errno: number): string {
  if (errno === stale) return "the process has let go of it";
  if (errno === accessDenied) {
    return "ranks that share memory run as one user, and none of them may have raised rights";
  }
  if (errno !== noEntry) return "";
  try {
    readlinkSync("/proc/self/exe");
    return `process ${pid} has ended or let go of it`;
  } catch {
    return "/proc is hidden here; mount it, or join with transport 'tcp'";
  }
}
