// Where the built web app lies, and under which policy it is meant to be served. There is no server
// code here: packages/server reads the folder, and this package never imports upward.

import { existsSync } from "node:fs";
import { fileURLToPath } from "node:url";

/** The folder to serve at `/`, or the reason why there is none and what to do about it. */
export type ConsoleDir = { readonly dir: string } | { readonly missing: string };

/**
 * Finds the built web app. `src/` and `dist/` are siblings, so the same relative path holds in the
 * source tree and in the published package. Looks at the disk on every call, because a server may
 * start before the build has finished.
 */
export function consoleDir(): ConsoleDir {
  const dir = fileURLToPath(new URL("../web-dist", import.meta.url));
  if (existsSync(new URL("../web-dist/index.html", import.meta.url))) return { dir };
  return {
    missing:
      `the web console is not built (no ${dir}/index.html): ` +
      "run 'npm run build' in the repository, or reinstall @open-infra/console",
  };
}

/**
 * The `Content-Security-Policy` the app runs under: everything from its own origin, nothing inline,
 * nothing evaluated, no frames. The browser tests serve the app with exactly this header.
 */
export const consoleContentSecurityPolicy: string =
  "default-src 'self'; object-src 'none'; base-uri 'none'; form-action 'none'; " +
  "frame-ancestors 'none'";
