// The keys of the timeline, in one table that the key handler and the help both read. What they do
// is the controller's business.

import type { Direction } from "../timeline/motion.ts";

/** What a key asks for once. */
export type Command =
  | "fit"
  | "all"
  | "mark"
  | "search"
  | "nextHit"
  | "previousHit"
  | "nextSlice"
  | "previousSlice"
  | "clear"
  | "help";

export type KeyAction =
  | { readonly kind: "move"; readonly direction: Direction }
  | { readonly kind: "command"; readonly command: Command };

const moves: Readonly<Record<string, Direction>> = {
  w: "zoomIn",
  s: "zoomOut",
  a: "left",
  d: "right",
  ArrowLeft: "left",
  ArrowRight: "right",
  ArrowUp: "up",
  ArrowDown: "down",
};

const commands: Readonly<Record<string, Command>> = {
  f: "fit",
  "0": "all",
  m: "mark",
  "/": "search",
  n: "nextHit",
  N: "previousHit",
  ".": "nextSlice",
  ",": "previousSlice",
  Escape: "clear",
  "?": "help",
};

/** Held down, these keys keep moving; lifting one is told by the same letter, shifted or not. */
export function directionOf(key: string): Direction | undefined {
  return moves[key.length === 1 ? key.toLowerCase() : key];
}

/** The part of a KeyboardEvent that matters here. */
export type KeyPress = { readonly key: string } & Readonly<
  Partial<Record<"ctrlKey" | "metaKey" | "altKey" | "shiftKey" | "isComposing", boolean>>
>;

/** What a key press asks for; undefined for other keys and for those of the browser. */
export function actionOf(event: KeyPress): KeyAction | undefined {
  if (event.ctrlKey || event.metaKey || event.altKey || event.isComposing) return undefined;
  if (!event.shiftKey) {
    const direction = directionOf(event.key);
    if (direction !== undefined) return { kind: "move", direction };
  }
  const command = commands[event.key];
  return command === undefined ? undefined : { kind: "command", command };
}

/** The help: keys and what they do. */
export const keyHelp: readonly (readonly [keys: readonly string[], does: string])[] = [
  [["w", "s"], "zoom in and out, at the pointer"],
  [["a", "d", "←", "→"], "move left and right"],
  [["↑", "↓"], "scroll the lanes"],
  [["f"], "fit the selected slice or range"],
  [["0"], "show the whole trace"],
  [["m"], "mark the selected slice or range; again to remove the mark"],
  [[",", "."], "select the slice before or after in its row"],
  [["/"], "search names; /words between slashes/ are a regular expression"],
  [["n", "N"], "next and previous hit"],
  [["Esc"], "clear the range, the selection, the search"],
  [["?"], "this help"],
  [["Ctrl+wheel"], "zoom at the pointer"],
  [["drag"], "move; with Shift, or on the axis, select a range of time"],
];
