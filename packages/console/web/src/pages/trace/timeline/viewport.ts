// Which part of time is visible, and how it moves: zoom about a point, pan, fit, glide. Pure
// arithmetic on immutable values; the frame loop lives in the view.

/** A part of time in µs since the trace's origin. */
export interface TimeRange {
  readonly startUs: number;
  readonly endUs: number;
}

/** Narrowest view: finer than any clock that writes traces. */
const MIN_SPAN_US = 0.05;
/** Room shown beyond the first and the last event, as a share of the visible span. */
const MARGIN = 0.02;

/** Keeps a view within the trace and its zoom within reason; the span is kept where it can be. */
export function clampView(view: TimeRange, totalUs: number): TimeRange {
  const most = Math.max(totalUs, MIN_SPAN_US) * (1 + 2 * MARGIN);
  const spanUs = Math.min(Math.max(view.endUs - view.startUs, MIN_SPAN_US), most);
  const marginUs = spanUs * MARGIN;
  const low = -marginUs;
  const high = Math.max(totalUs + marginUs - spanUs, low);
  // A view that had to change its span keeps its middle.
  const middle = (view.startUs + view.endUs) / 2;
  const startUs = Math.min(Math.max(middle - spanUs / 2, low), high);
  return { startUs, endUs: startUs + spanUs };
}

/** The whole trace with a little room on both sides. */
export function wholeView(totalUs: number): TimeRange {
  const marginUs = Math.max(totalUs, MIN_SPAN_US) * MARGIN;
  return { startUs: -marginUs, endUs: Math.max(totalUs, MIN_SPAN_US) + marginUs };
}

/** Shows `factor` times as much time; what is at `anchorUs` stays where it is. */
export function zoomView(
  view: TimeRange,
  factor: number,
  anchorUs: number,
  totalUs: number,
): TimeRange {
  const spanUs = view.endUs - view.startUs;
  const most = Math.max(totalUs, MIN_SPAN_US) * (1 + 2 * MARGIN);
  const wanted = Math.min(Math.max(spanUs * factor, MIN_SPAN_US), most);
  const share = (anchorUs - view.startUs) / spanUs;
  const startUs = anchorUs - share * wanted;
  return clampView({ startUs, endUs: startUs + wanted }, totalUs);
}

/** Moves by a share of what is visible. */
export function panView(view: TimeRange, share: number, totalUs: number): TimeRange {
  const shiftUs = (view.endUs - view.startUs) * share;
  return clampView({ startUs: view.startUs + shiftUs, endUs: view.endUs + shiftUs }, totalUs);
}

/** A view that shows `range` with room around it. */
export function fitView(range: TimeRange, totalUs: number): TimeRange {
  const roomUs = Math.max((range.endUs - range.startUs) * 0.08, MIN_SPAN_US / 2);
  return clampView({ startUs: range.startUs - roomUs, endUs: range.endUs + roomUs }, totalUs);
}

/** Moves the view as little as needed for `range` to be seen; a range that is a speck is fitted. */
export function revealView(view: TimeRange, range: TimeRange, totalUs: number): TimeRange {
  const spanUs = view.endUs - view.startUs;
  const lengthUs = range.endUs - range.startUs;
  const speck = lengthUs < spanUs / 400;
  if (lengthUs > spanUs || speck) {
    // Wide enough around a speck to see what it stands among.
    const aroundUs = Math.max(lengthUs * 12, MIN_SPAN_US);
    const middle = (range.startUs + range.endUs) / 2;
    if (speck && aroundUs < spanUs) {
      return clampView({ startUs: middle - aroundUs / 2, endUs: middle + aroundUs / 2 }, totalUs);
    }
    return fitView(range, totalUs);
  }
  if (range.startUs >= view.startUs && range.endUs <= view.endUs) return view;
  const startUs = range.startUs - (spanUs - lengthUs) / 2;
  return clampView({ startUs, endUs: startUs + spanUs }, totalUs);
}

/**
 * A view between two, for a glide; `progress` from 0 to 1. The span changes by ratio, so that a far
 * zoom feels even, and eases out.
 */
export function betweenViews(from: TimeRange, to: TimeRange, progress: number): TimeRange {
  if (progress >= 1) return to;
  const eased = 1 - (1 - progress) ** 3;
  const fromSpan = from.endUs - from.startUs;
  const toSpan = to.endUs - to.startUs;
  const spanUs = fromSpan * (toSpan / fromSpan) ** eased;
  // How far the span has come decides how far the edge has come: the shared point stays still.
  const moved =
    Math.abs(toSpan - fromSpan) < 1e-9 ? eased : (spanUs - fromSpan) / (toSpan - fromSpan);
  const startUs = from.startUs + (to.startUs - from.startUs) * moved;
  return { startUs, endUs: startUs + spanUs };
}
