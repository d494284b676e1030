// Bodies that a server does not take as one message go by a file in the job's folder, which sender
// and receiver share anyway for data. Written whole, renamed, read once, removed.

import { createHash } from "node:crypto";
import { mkdir, readFile, rename, rm, writeFile } from "node:fs/promises";
import { join } from "node:path";

const mark = "\u0000file ";

/** Swaps large bodies for references. */
export class LargeBodies {
  readonly #folder: string;

  /** @param folder In the job's folder, for this purpose only. */
  constructor(folder: string) {
    this.#folder = folder;
  }

  /** The body, or a reference to a file with it. */
  async shrink(id: string, body: string, maxBytes: number): Promise<string> {
    if (Buffer.byteLength(body) <= maxBytes) return body;
    await mkdir(this.#folder, { recursive: true, mode: 0o700 });
    const aside = join(this.#folder, `.${id}`);
    await writeFile(aside, body, { mode: 0o600 });
    await rename(aside, join(this.#folder, id));
    return `${mark}${createHash("sha256").update(body).digest("hex")} ${id}`;
  }

  /**
   * The body again; undefined if its file is gone, as it is once somebody was done with it, or is
   * not what was sent.
   */
  async grow(body: string): Promise<string | undefined> {
    if (!body.startsWith(mark)) return body;
    const [hash, id = ""] = body.slice(mark.length).split(" ");
    if (!/^[\w+-]+$/.test(id)) return undefined;
    const text = await readFile(join(this.#folder, id), "utf8").catch(() => undefined);
    if (text === undefined) return undefined;
    return createHash("sha256").update(text).digest("hex") === hash ? text : undefined;
  }

  /** The receiver is done with it. */
  async forget(body: string): Promise<void> {
    if (!body.startsWith(mark)) return;
    const id = body.slice(mark.length).split(" ")[1] ?? "";
    if (/^[\w+-]+$/.test(id)) await rm(join(this.#folder, id), { force: true });
  }
}
