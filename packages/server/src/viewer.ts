// The page of a trace on this machine, without an engine: the console, and the one file at an
// address that cannot be guessed.

import { type FileHandle, open } from "node:fs/promises";
import { basename } from "node:path";
import { Readable } from "node:stream";
import { InputError } from "@open-infra/errors";
import { ApiError } from "./errors.ts";
import type { ConsoleFiles } from "./options.ts";
import type { ServerContext } from "./scope.ts";
import { privateHeaders, type RunningViewer, secretPath, startViewerApp } from "./viewer-app.ts";

export interface ViewerOptions {
  /** The trace: JSON, or JSON in gzip. */
  readonly file: string;
  /** The console's built files. */
  readonly console: ConsoleFiles;
  /** 0 takes a free one. @default 0 */
  readonly port?: number;
}

const GZIP_MAGIC = [0x1f, 0x8b] as const;

/**
 * Serves the console and one trace on a loopback address.
 *
 * @throws InputError if the console is not built, or the file is not a readable file.
 * @throws PortInUseError, ListenError
 */
export async function startViewer(options: ViewerOptions): Promise<RunningViewer> {
  const { file, console, port = 0 } = options;
  // Before a file is looked for that nobody could be shown.
  const type = "missing" in console ? "" : await typeOf(file);
  const path = secretPath("trace");
  return await startViewerApp({
    ...{ console, port, shows: "a trace", page: `trace/?url=${encodeURIComponent(path)}` },
    routes: (app) => app.get(path, (c) => sendTrace(c, file, type)),
  });
}

/** The file as it is now, in pieces; opened for every request, since a run may write it again. */
async function sendTrace(c: ServerContext, file: string, type: string): Promise<Response> {
  const handle = await open(file).catch((cause: unknown) => {
    throw new ApiError(404, "the trace is no longer there", { cause });
  });
  const { size } = await handle.stat();
  const headers = {
    "content-type": type,
    "content-length": String(size),
    "content-disposition": `inline; filename*=UTF-8''${encodeName(basename(file))}`,
    ...privateHeaders,
  };
  if (c.req.method === "HEAD" || size === 0) {
    await handle.close();
    return new Response(null, { headers });
  }
  // Not beyond the size that was promised, though the file may be growing.
  const stream = handle.createReadStream({ end: size - 1, highWaterMark: 1 << 18 });
  return new Response(Readable.toWeb(stream) as ReadableStream<Uint8Array>, { headers });
}

/** RFC 8187's characters; encodeURIComponent leaves four of the others. */
function encodeName(name: string): string {
  return encodeURIComponent(name).replace(
    /['()*]/g,
    (sign) => `%${sign.charCodeAt(0).toString(16).toUpperCase()}`,
  );
}

/** Opens the file once before anything is promised. @throws InputError */
async function typeOf(file: string): Promise<string> {
  let handle: FileHandle;
  try {
    handle = await open(file);
  } catch (cause) {
    throw new InputError("file", `${file}, which ${reasonOf(cause)}`, "a trace", { cause });
  }
  try {
    if (!(await handle.stat()).isFile()) {
      throw new InputError("file", `${file}, which is no regular file`, "a trace");
    }
    const { buffer } = await handle.read(Buffer.alloc(2), 0, 2, 0);
    const packed = GZIP_MAGIC.every((byte, index) => buffer[index] === byte);
    return packed ? "application/gzip" : "application/json";
  } finally {
    await handle.close();
  }
}

function reasonOf(cause: unknown): string {
  const { code, message } = cause as NodeJS.ErrnoException;
  const reasons: Readonly<Record<string, string>> = {
    ENOENT: "does not exist",
    EACCES: "may not be read",
    EISDIR: "is a folder",
  };
  return reasons[code ?? ""] ?? message;
}
