// Small parts of SVG that the timeline is put together from: elements, escaping, numbers, colours.

import type { OpKindName } from "../schedule/schedule.ts";

/** Colours that read on white and on near-black. */
export const ink = {
  text: "#6b7974",
  line: "#8a9893",
  track: "#8a9893",
  alert: "#d1452b",
} as const;

interface Shade {
  readonly fill: string;
  /** Of a number upon it. */
  readonly text: string;
}

const white = "#ffffff";
const dark = "#10201d";

/** By kind, then by direction: the second direction is the lighter. */
const palette: Readonly<Partial<Record<OpKindName, readonly [Shade, Shade]>>> = {
  F: [
    { fill: "#1f7f74", text: white },
    { fill: "#7cc4b9", text: dark },
  ],
  B: [
    { fill: "#b06a0c", text: white },
    { fill: "#e5b768", text: dark },
  ],
  I: [
    { fill: "#5566a8", text: white },
    { fill: "#a3aedb", text: dark },
  ],
  W: [
    { fill: "#7d7f86", text: white },
    { fill: "#b9bbc1", text: dark },
  ],
  FB: [
    { fill: "#8f6f8e", text: white },
    { fill: "#8f6f8e", text: white },
  ],
};

/** Colours of a kind in a direction. */
export function shades(kind: OpKindName, direction: number): Shade {
  const both = palette[kind] as readonly [Shade, Shade];
  return both[direction % 2] as Shade;
}

const entities: Readonly<Record<string, string>> = {
  "&": "&amp;",
  "<": "&lt;",
  ">": "&gt;",
  '"': "&quot;",
  "'": "&#39;",
};

/** Text as it may stand in an element or attribute; characters XML forbids are left out. */
export function escapeXml(text: string): string {
  // biome-ignore lint/suspicious/noControlCharactersInRegex: these are what XML forbids.
  const legal = text.replace(/[\u0000-\u0008\u000b\u000c\u000e-\u001f\ufffe\uffff]/g, "");
  return legal.replace(/[&<>"']/g, (character) => entities[character] as string);
}

/** Hundredths are enough for pixels. */
export function fixed(value: number): string {
  return String(Math.round(value * 100) / 100);
}

/** An element; attribute values are escaped, `body` is markup. */
export function element(
  name: string,
  attributes: Readonly<Record<string, string | number>>,
  body = "",
): string {
  const list = Object.entries(attributes)
    .map(([key, value]) => ` ${key}="${escapeXml(String(value))}"`)
    .join("");
  return body === "" ? `<${name}${list}/>` : `<${name}${list}>${body}</${name}>`;
}
