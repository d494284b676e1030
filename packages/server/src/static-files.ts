// Serves the console's built files from one folder. Addresses are resolved inside that folder, with
// links followed, before anything is opened; names with a content hash are cached for good.

import { readFile, realpath, stat } from "node:fs/promises";
import { extname, join, sep } from "node:path";
import { ApiError } from "./errors.ts";
import type { ConsoleFiles } from "./options.ts";
import type { ServerContext } from "./scope.ts";

const types: Readonly<Record<string, string>> = {
  ".html": "text/html; charset=utf-8",
  ".js": "text/javascript; charset=utf-8",
  ".mjs": "text/javascript; charset=utf-8",
  ".css": "text/css; charset=utf-8",
  ".json": "application/json",
  ".map": "application/json",
  ".webmanifest": "application/manifest+json",
  ".svg": "image/svg+xml",
  ".png": "image/png",
  ".jpg": "image/jpeg",
  ".ico": "image/x-icon",
  ".webp": "image/webp",
  ".woff2": "font/woff2",
  ".wasm": "application/wasm",
  ".txt": "text/plain; charset=utf-8",
};

/** Everything from here, nothing inline, no frames: what a stolen page could do stays little. */
const contentSecurityPolicy =
  "default-src 'self'; object-src 'none'; base-uri 'none'; form-action 'none'; " +
  "frame-ancestors 'none'";

const commonHeaders = {
  "content-security-policy": contentSecurityPolicy,
  "x-content-type-options": "nosniff",
  "referrer-policy": "no-referrer",
};

/** The file at the request's path, `index.html` at `/`. @throws ApiError 404 */
export async function getStaticFile(files: ConsoleFiles, c: ServerContext): Promise<Response> {
  const { path } = c.req;
  if ("missing" in files) {
    if (path !== "/") throw notFound(path);
    return c.text(`Open Infra is running; its API is under /v1.\n\n${files.missing}\n`);
  }
  const file = await findFile(files.dir, path === "/" ? "/index.html" : path);
  if (file === undefined) throw notFound(path);
  const { size, mtimeMs } = await stat(file);
  const etag = `W/"${size.toString(36)}-${Math.trunc(mtimeMs).toString(36)}"`;
  const headers = {
    ...commonHeaders,
    "content-type": types[extname(file)] ?? "application/octet-stream",
    "cache-control": path.startsWith("/assets/")
      ? "public, max-age=31536000, immutable"
      : "no-cache",
    etag,
  };
  const known = (c.req.header("if-none-match") ?? "").split(",").map((tag) => tag.trim());
  if (known.includes(etag)) return c.body(null, 304, headers);
  return c.body(await readFile(file), 200, headers);
}

function notFound(path: string): ApiError {
  return new ApiError(404, `there is nothing at ${path.slice(0, 200)}`, { code: "not_found" });
}

/** The real path of a regular file inside `dir`, or undefined. */
async function findFile(dir: string, path: string): Promise<string | undefined> {
  const relative = decodePath(path);
  if (relative === undefined) return undefined;
  try {
    const root = await realpath(dir);
    const file = await realpath(join(root, relative));
    if (!file.startsWith(root + sep)) return undefined;
    return (await stat(file)).isFile() ? file : undefined;
  } catch {
    // Not there, not readable, a file where a folder was meant: the same to a client.
    return undefined;
  }
}

/** Undefined for what no file of the console is named. */
function decodePath(path: string): string | undefined {
  let decoded: string;
  try {
    decoded = decodeURIComponent(path);
  } catch {
    return undefined;
  }
  const parts = decoded.split("/").slice(1);
  const strange = (part: string): boolean =>
    part === "" || part.startsWith(".") || /[\\\0:]/.test(part);
  return parts.length === 0 || parts.some(strange) ? undefined : parts.join("/");
}
