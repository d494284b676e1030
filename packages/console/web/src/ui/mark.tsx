// The mark of the project: three tiers of a rack, the lowest one lit.

import type { VNode } from "preact";

export function Mark(): VNode {
  return (
    <svg class="mark" viewBox="0 0 20 20" width="20" height="20" aria-hidden="true">
      <rect x="1" y="2" width="18" height="4" rx="1" opacity="0.35" />
      <rect x="1" y="8" width="18" height="4" rx="1" opacity="0.6" />
      <rect x="1" y="14" width="18" height="4" rx="1" class="mark-lit" />
    </svg>
  );
}
