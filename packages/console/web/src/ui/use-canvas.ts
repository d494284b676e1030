// A canvas of a component: drawn when what it shows has changed, with the theme of its scheme.

import type { RefObject } from "preact";
import { useLayoutEffect, useRef } from "preact/hooks";
import { CanvasSurface, type SurfaceFrame } from "./canvas-surface.ts";

/** Draws with `paint` after every rendering of the component, and when size or scheme change. */
export function useCanvas<Theme>(
  readTheme: (element: Element) => Theme,
  paint: (frame: SurfaceFrame, theme: Theme) => void,
): RefObject<HTMLCanvasElement> {
  const canvas = useRef<HTMLCanvasElement>(null);
  const surface = useRef<CanvasSurface | null>(null);
  const latest = useRef(paint);
  latest.current = paint;
  useLayoutEffect(() => {
    const element = canvas.current as HTMLCanvasElement;
    let theme = readTheme(element);
    const made = new CanvasSurface(element, {
      draw: (frame) => latest.current(frame, theme),
      onScheme: () => {
        theme = readTheme(element);
      },
    });
    surface.current = made;
    return () => {
      surface.current = null;
      made[Symbol.dispose]();
    };
  }, [readTheme]);
  useLayoutEffect(() => surface.current?.invalidate());
  return canvas as RefObject<HTMLCanvasElement>;
}
