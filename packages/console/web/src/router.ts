// Addresses of the form `#/page/rest`. Only the hash: the server needs no rule for it, and the app
// works under any path.

export interface Route {
  /** The first part of the address; "" for the home page. */
  readonly path: string;
  readonly rest: string;
}

/** Reads a location's hash. */
export function parseHash(hash: string): Route {
  const address = hash.replace(/^#?\/?/, "");
  const slash = address.indexOf("/");
  if (slash === -1) return { path: address, rest: "" };
  return { path: address.slice(0, slash), rest: address.slice(slash + 1) };
}
