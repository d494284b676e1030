// Where this package's own C sources are, from `src/` and from `dist/` alike.

/** A file in this package's `kernels/`. */
export function kernelUrl(file: string): URL {
  return new URL(`../kernels/${file}`, import.meta.url);
}
