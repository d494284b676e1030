// The page of jobs on this machine, without an engine: the console, a list of jobs, and their
// logs in pieces as they grow. What a job is, its maker says.

import { open } from "node:fs/promises";
import { ApiError } from "./errors.ts";
import type { ConsoleFiles } from "./options.ts";
import { privateHeaders, type RunningViewer, secretPath, startViewerApp } from "./viewer-app.ts";

export interface JobViewerOptions {
  /** What the page lists; JSON. */
  readonly list: () => Promise<readonly unknown[]>;
  /** The log of a job of the list; undefined if there is none. */
  readonly logOf: (job: string) => Promise<string | undefined>;
  /** The job that is shown first. */
  readonly job?: string;
  /** The console's built files. */
  readonly console: ConsoleFiles;
  /** 0 takes a free one. @default 0 */
  readonly port?: number;
}

/** Sent at once; the page asks for more. */
const pieceBytes = 1 << 22;

/**
 * Serves the console and the logs of jobs on a loopback address.
 *
 * @throws InputError if the console is not built
 * @throws PortInUseError, ListenError
 */
export async function startJobViewer(options: JobViewerOptions): Promise<RunningViewer> {
  const { list, logOf, job, console, port = 0 } = options;
  const path = secretPath("jobs");
  const query = new URLSearchParams({ at: path, ...(job !== undefined && { job }) });
  return await startViewerApp({
    ...{ console, port, shows: "jobs", page: `jobs/?${query}` },
    routes: (app) => {
      app.get(`${path}/list`, async () => Response.json(await list(), { headers: privateHeaders }));
      app.get(`${path}/log`, async (c) => {
        const { job: asked = "", from = "0" } = c.req.query();
        const file = await logOf(asked);
        if (file === undefined) throw new ApiError(404, `there is no job ${asked}`);
        return await piece(file, Number(from));
      });
    },
  });
}

/** What a log has from a byte on; the whole size beside it. */
async function piece(file: string, from: number): Promise<Response> {
  if (!Number.isSafeInteger(from) || from < 0) throw new ApiError(400, "from is no offset");
  const handle = await open(file).catch((cause: unknown) => {
    throw new ApiError(404, "the log is no longer there", { cause });
  });
  try {
    const { size } = await handle.stat();
    const bytes = Buffer.alloc(Math.min(pieceBytes, Math.max(0, size - from)));
    const { bytesRead } = await handle.read(bytes, 0, bytes.length, from);
    const headers = {
      "content-type": "application/x-ndjson; charset=utf-8",
      "x-log-bytes": String(size),
    };
    return new Response(bytes.subarray(0, bytesRead), {
      headers: { ...privateHeaders, ...headers },
    });
  } finally {
    await handle.close();
  }
}
