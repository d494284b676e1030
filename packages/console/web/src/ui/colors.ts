// Colours of tokens.css as numbers for pixel buffers, and mixtures of them. Reading them from an
// element is in tokens.ts.

/** Red, green, blue, each 0 to 255. */
export type Rgb = readonly [number, number, number];

/** `#rgb` and `#rrggbb`, as tokens.css writes colours. Anything else is a mid grey. */
export function parseHex(text: string): Rgb {
  const digits = /^#([0-9a-f]{3}|[0-9a-f]{6})$/i.exec(text)?.[1];
  if (digits === undefined) return [128, 128, 128];
  const width = digits.length / 3;
  const part = (index: number): number => {
    const pair = digits.slice(index * width, (index + 1) * width);
    return Number.parseInt(width === 1 ? pair + pair : pair, 16);
  };
  return [part(0), part(1), part(2)];
}

/** A mixture: `share` of `over`, the rest of `under`. */
export function mix(over: Rgb, under: Rgb, share: number): Rgb {
  const blend = (index: 0 | 1 | 2): number =>
    Math.round(over[index] * share + under[index] * (1 - share));
  return [blend(0), blend(1), blend(2)];
}

/** One opaque pixel of an ImageData as a Uint32Array sees it; little-endian, as browsers are. */
export function pixelOf([red, green, blue]: Rgb): number {
  return ((255 << 24) | (blue << 16) | (green << 8) | red) >>> 0;
}

/** For fillStyle. */
export function cssOf([red, green, blue]: Rgb, alpha = 1): string {
  return alpha === 1 ? `rgb(${red} ${green} ${blue})` : `rgb(${red} ${green} ${blue} / ${alpha})`;
}

/** Relative luminance of WCAG, 0 to 1. */
export function luminanceOf(color: Rgb): number {
  const [red, green, blue] = color.map((part) => {
    const share = part / 255;
    return share <= 0.04045 ? share / 12.92 : ((share + 0.055) / 1.055) ** 2.4;
  }) as [number, number, number];
  return 0.2126 * red + 0.7152 * green + 0.0722 * blue;
}

/** Of two inks the one that reads better on a colour. */
export function inkOn(background: Rgb, dark: Rgb, light: Rgb): Rgb {
  const at = luminanceOf(background) + 0.05;
  const onDark = at / (luminanceOf(dark) + 0.05);
  const onLight = (luminanceOf(light) + 0.05) / at;
  return onDark >= onLight ? dark : light;
}
