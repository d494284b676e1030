// Reads the tokens of tokens.css. A canvas keeps what was drawn, so whoever uses these draws anew
// when the scheme changes.

import { parseHex, type Rgb } from "./colors.ts";

/** Reads tokens of an element: the custom property without its dashes. */
export function tokenReader(element: Element): (token: string) => Rgb {
  const style = getComputedStyle(element);
  return (token) => parseHex(style.getPropertyValue(`--${token}`).trim());
}
