// A canvas that fills its element at the screen's own resolution and is drawn when something has
// changed, at most once a frame. It knows when to draw, not what.

/** What a drawing gets. All sizes are device pixels but for `scale`. */
export interface SurfaceFrame {
  readonly context: CanvasRenderingContext2D;
  readonly width: number;
  readonly height: number;
  /** Device pixels of a CSS pixel. */
  readonly scale: number;
  /** Of the frame, in milliseconds, as requestAnimationFrame gives it. */
  readonly timeMs: number;
}

export interface SurfaceOptions {
  readonly draw: (frame: SurfaceFrame) => void;
  /** The colour scheme has changed: tokens must be read again. */
  readonly onScheme: () => void;
}

/** Draws `canvas` on demand. */
export class CanvasSurface implements Disposable {
  readonly canvas: HTMLCanvasElement;
  readonly #context: CanvasRenderingContext2D;
  readonly #options: SurfaceOptions;
  readonly #resizing: ResizeObserver;
  readonly #scheme: MediaQueryList = matchMedia("(prefers-color-scheme: dark)");
  readonly #onScheme: () => void;
  #request = 0;

  constructor(canvas: HTMLCanvasElement, options: SurfaceOptions) {
    const context = canvas.getContext("2d", { alpha: false });
    if (context === null) throw new Error("this browser gives no 2D canvas");
    this.canvas = canvas;
    this.#context = context;
    this.#options = options;
    this.#onScheme = () => {
      options.onScheme();
      this.invalidate();
    };
    this.#scheme.addEventListener("change", this.#onScheme);
    this.#resizing = new ResizeObserver(() => this.invalidate());
    this.#resizing.observe(canvas);
    this.invalidate();
  }

  /** Draws in the next frame. */
  invalidate(): void {
    if (this.#request === 0) this.#request = requestAnimationFrame((time) => this.#frame(time));
  }

  [Symbol.dispose](): void {
    cancelAnimationFrame(this.#request);
    this.#resizing.disconnect();
    this.#scheme.removeEventListener("change", this.#onScheme);
  }

  #frame(timeMs: number): void {
    // Cleared first: a drawing that wants another frame may say so.
    this.#request = 0;
    const scale = devicePixelRatio || 1;
    const width = Math.round(this.canvas.clientWidth * scale);
    const height = Math.round(this.canvas.clientHeight * scale);
    if (width === 0 || height === 0) return;
    if (this.canvas.width !== width) this.canvas.width = width;
    if (this.canvas.height !== height) this.canvas.height = height;
    this.#options.draw({ context: this.#context, width, height, scale, timeMs });
  }
}
