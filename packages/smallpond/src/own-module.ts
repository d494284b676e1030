// Modules of this package that are started as programs or threads, or named to executors:
// TypeScript where it runs from its sources, JavaScript where it is installed.

const fromSource = import.meta.url.endsWith(".ts");

/**
 * Where a module lies.
 *
 * @param path From `base`, without the ending: `./steps`.
 * @param base The caller's `import.meta.url`.
 */
export function ownModule(path: string, base: string): URL {
  return new URL(`${path}.${fromSource ? "ts" : "js"}`, base);
}

/**
 * Node's flags for such a program. Not this process's own: with `-e` among them, it would be the
 * user's script again.
 */
export const ownFlags: readonly string[] = fromSource ? ["--conditions=@open-infra/source"] : [];
