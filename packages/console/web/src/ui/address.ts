// Keeps the address of a page and the state of its form alike: a link sets the form, a change of
// the form rewrites the address without a new entry in the browser's history.

import { useEffect } from "preact/hooks";
import { parseHash } from "../router.ts";

export interface Addressed {
  /** What the form says, as `?name=text&…`. */
  readonly query: string;
  /** Takes over what an address says. */
  readonly take: (rest: string) => void;
}

/** Call it while the page at `path` is shown. */
export function useAddress(path: string, { query, take }: Addressed): void {
  useEffect(() => {
    const follow = (): void => {
      const route = parseHash(location.hash);
      // The navigation's own link names no view: then the page stays as it was left.
      if (route.path === path && route.rest !== "") take(route.rest);
    };
    follow();
    addEventListener("hashchange", follow);
    return () => removeEventListener("hashchange", follow);
  }, [path, take]);
  useEffect(() => {
    const wanted = query === "" ? `#/${path}` : `#/${path}/${query}`;
    if (location.hash !== wanted) history.replaceState(history.state, "", wanted);
  }, [path, query]);
}
