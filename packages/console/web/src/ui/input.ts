// Small habits of text input and scrolling that pages share.

import type { RefObject } from "preact";
import { useEffect, useLayoutEffect, useRef } from "preact/hooks";

/** Ctrl+Enter or Command+Enter. */
export function isMainEnter(event: KeyboardEvent): boolean {
  return event.key === "Enter" && (event.ctrlKey || event.metaKey) && !event.isComposing;
}

/** Enter alone, not while an input method is still composing a word. */
export function isPlainEnter(event: KeyboardEvent): boolean {
  const modified = event.shiftKey || event.ctrlKey || event.metaKey || event.altKey;
  return event.key === "Enter" && !modified && !event.isComposing;
}

/** Calls `stop` on Escape anywhere on the page while `active`; a dialog keeps its own Escape. */
export function useEscape(active: boolean, stop: () => void): void {
  const latest = useRef(stop);
  latest.current = stop;
  useEffect(() => {
    if (!active) return;
    const onKeyDown = (event: KeyboardEvent): void => {
      const inDialog = event.target instanceof Element && event.target.closest("dialog") !== null;
      if (event.key !== "Escape" || event.defaultPrevented || inDialog) return;
      event.preventDefault();
      latest.current();
    };
    addEventListener("keydown", onKeyDown);
    return () => removeEventListener("keydown", onKeyDown);
  }, [active]);
}

/** Pixels from the end at which a reader still counts as following. */
const FOLLOW_PX = 48;

/**
 * Keeps a growing, scrolling element at its end while `active`, unless the reader has scrolled up;
 * returning to the end follows again. `growth` changes whenever the element grows.
 */
export function useStickToEnd(
  element: RefObject<HTMLElement | null>,
  growth: unknown,
  active: boolean,
): void {
  const following = useRef(true);
  useLayoutEffect(() => {
    const target = element.current;
    if (target === null) return;
    const onScroll = (): void => {
      following.current = target.scrollHeight - target.scrollTop - target.clientHeight < FOLLOW_PX;
    };
    target.addEventListener("scroll", onScroll, { passive: true });
    return () => target.removeEventListener("scroll", onScroll);
  }, [element]);
  useLayoutEffect(() => {
    const target = element.current;
    if (target !== null && active && following.current) target.scrollTop = target.scrollHeight;
  }, [element, growth, active]);
}
