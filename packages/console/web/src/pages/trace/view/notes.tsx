// What the reader left out or mended, shown so that nothing is missing unsaid.

import type { TraceNotes } from "@open-infra/profile/analyze";
import type { VNode } from "preact";
import { noteTexts } from "./texts.ts";

export function Notes({ notes }: { readonly notes: TraceNotes }): VNode | null {
  const texts = noteTexts(notes);
  if (texts.length === 0) return null;
  return <p class="trace-notes">{texts.join(" · ")}</p>;
}
