// Names for narrow places: C++ names lose what the analyser's short names lose, words stay as
// written.

import { shortName } from "@open-infra/profile/analyze";

/** `attn(F)` stays; `void deep_ep::internode::dispatch<true>(int*)` is `internode::dispatch`. */
export function briefName(name: string): string {
  return /::|<|^void /.test(name) ? shortName(name) : name;
}
