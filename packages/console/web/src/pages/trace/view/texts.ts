// Sentences and names that the page makes of a trace's facts. No elements here.

import type { TraceNotes } from "@open-infra/profile/analyze";
import { formatCount } from "../../../ui/format.ts";

/** One clause a kind of note; none for a clean file. */
export function noteTexts(notes: TraceNotes): string[] {
  const texts: string[] = [];
  const tell = (count: number, what: string): void => {
    if (count > 0) texts.push(`${formatCount(count)} ${what}`);
  };
  if (notes.stopped !== undefined) texts.push(`reading stopped: ${notes.stopped.message}`);
  tell(notes.malformedEvents, "malformed events left out");
  tell(notes.unmatchedEnds, "ends without a beginning left out");
  tell(notes.unclosedBegins, "beginnings without an end shown as moments");
  tell(notes.negativeDurations, "negative durations shown as 0");
  tell(notes.missingDurations, "missing durations shown as 0");
  for (const [phase, count] of Object.entries(notes.skippedPhases)) {
    tell(count, `events of phase ${phase} not shown`);
  }
  if (notes.unterminatedArray) texts.push("the array of events was not closed");
  return texts;
}

/** `step.json.gz` and `step` are `step.json`. */
export function savedName(title: string): string {
  const bare = title.replace(/\.gz$/i, "").replace(/[/\\]/g, "_");
  return /\.json$/i.test(bare) ? bare : `${bare}.json`;
}
