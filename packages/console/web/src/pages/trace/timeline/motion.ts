// Motion while keys are held: each direction speeds up smoothly to its top speed and coasts to a
// stop when it is let go. Knows no keyboard and no clock; the frame loop feeds it both.

export type Direction = "zoomIn" | "zoomOut" | "left" | "right" | "up" | "down";

/** What to apply to the view for one frame. */
export interface Step {
  /** Factor on the visible span; below 1 zooms in. */
  readonly zoom: number;
  /** Share of the visible span to move by. */
  readonly pan: number;
  /** CSS pixels to scroll down by. */
  readonly scroll: number;
}

/** Spans a second, e-folds a second, pixels a second. */
const PAN_SPEED = 1.6;
const ZOOM_SPEED = 3.2;
const SCROLL_SPEED = 900;
/** Time in which a speed comes within a third of where it is going. */
const EASE_MS = 70;
/** Below this share of the top speed it stands still. */
const REST = 0.004;
/** A tab that was hidden must not jump when it comes back. */
const MAX_FRAME_MS = 64;

/** Speeds of zoom, pan and scroll under held keys. */
export class Motion {
  readonly #held: Set<Direction> = new Set();
  #zoom = 0;
  #pan = 0;
  #scroll = 0;

  press(direction: Direction): void {
    this.#held.add(direction);
  }

  release(direction: Direction): void {
    this.#held.delete(direction);
  }

  /** Lets go of everything and stands still, as when the page loses the focus. */
  stop(): void {
    this.#held.clear();
    this.#zoom = 0;
    this.#pan = 0;
    this.#scroll = 0;
  }

  get moving(): boolean {
    return this.#held.size > 0 || this.#zoom !== 0 || this.#pan !== 0 || this.#scroll !== 0;
  }

  /** Advances by the time since the last frame. */
  advance(elapsedMs: number): Step {
    const ms = Math.min(Math.max(elapsedMs, 0), MAX_FRAME_MS);
    const blend = 1 - Math.exp(-ms / EASE_MS);
    this.#zoom = ease(this.#zoom, this.#axis("zoomOut", "zoomIn"), blend);
    this.#pan = ease(this.#pan, this.#axis("right", "left"), blend);
    this.#scroll = ease(this.#scroll, this.#axis("down", "up"), blend);
    const seconds = ms / 1000;
    return {
      zoom: Math.exp(this.#zoom * ZOOM_SPEED * seconds),
      pan: this.#pan * PAN_SPEED * seconds,
      scroll: this.#scroll * SCROLL_SPEED * seconds,
    };
  }

  #axis(plus: Direction, minus: Direction): number {
    return (this.#held.has(plus) ? 1 : 0) - (this.#held.has(minus) ? 1 : 0);
  }
}

function ease(speed: number, target: number, blend: number): number {
  const next = speed + (target - speed) * blend;
  return target === 0 && Math.abs(next) < REST ? 0 : next;
}

/** One press where motion is unwelcome: a jump instead of a glide. */
export function stillStep(direction: Direction): Step {
  const still = { zoom: 1, pan: 0, scroll: 0 };
  switch (direction) {
    case "zoomIn":
      return { ...still, zoom: 0.7 };
    case "zoomOut":
      return { ...still, zoom: 1 / 0.7 };
    case "left":
      return { ...still, pan: -0.15 };
    case "right":
      return { ...still, pan: 0.15 };
    case "up":
      return { ...still, scroll: -90 };
    case "down":
      return { ...still, scroll: 90 };
  }
}
