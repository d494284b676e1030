// Where the cells of a heat map lie: a row a layer, a column a GPU, a gap between nodes. Pixels in,
// cells out, and back.

/** A cell of the heat map. */
export interface HeatCell {
  readonly layer: number;
  readonly gpu: number;
}

/** CSS pixels left of the cells for the layers' numbers, above them for the nodes' names. */
const GUTTER_PX = 30;
const HEAD_PX = 18;
/** Between two nodes. */
const NODE_GAP_PX = 4;
const ROW_MOST_PX = 30;
const ROW_LEAST_PX = 4;
/** What the rows of a map take together where they can choose. */
const ROWS_PX = 400;

export interface HeatLayout {
  readonly left: number;
  readonly top: number;
  readonly rowHeight: number;
  readonly columnWidth: number;
  readonly nodeGap: number;
  readonly gpusPerNode: number;
  readonly numGpus: number;
  readonly numLayers: number;
}

/** Height of one map in CSS pixels. */
export function heatHeight(numLayers: number): number {
  const row = Math.min(ROW_MOST_PX, Math.max(ROW_LEAST_PX, Math.floor(ROWS_PX / numLayers)));
  return HEAD_PX + row * numLayers + 2;
}

/** The layout in a canvas; `scale` is device pixels a CSS pixel. */
export function heatLayout(
  width: number,
  scale: number,
  shape: { readonly numGpus: number; readonly numNodes: number },
  numLayers: number,
): HeatLayout {
  const { numGpus, numNodes } = shape;
  const whole = numGpus % numNodes === 0;
  const nodes = whole ? numNodes : 1;
  const left = GUTTER_PX * scale;
  const room = width - left - 2 * scale;
  const wanted = NODE_GAP_PX * scale;
  // With many nodes in little room the gaps shrink, then go.
  const nodeGap = nodes > 1 ? Math.min(wanted, (room * 0.15) / (nodes - 1)) : 0;
  return {
    left,
    top: HEAD_PX * scale,
    rowHeight: ((heatHeight(numLayers) - HEAD_PX - 2) / numLayers) * scale,
    columnWidth: (room - nodeGap * (nodes - 1)) / numGpus,
    nodeGap,
    gpusPerNode: numGpus / nodes,
    numGpus,
    numLayers,
  };
}

/** Left edge of a GPU's column. */
export function columnLeft(layout: HeatLayout, gpu: number): number {
  const node = Math.floor(gpu / layout.gpusPerNode);
  return layout.left + gpu * layout.columnWidth + node * layout.nodeGap;
}

/** The cell at a point of the canvas, in device pixels. */
export function cellAt(layout: HeatLayout, x: number, y: number): HeatCell | null {
  const layer = Math.floor((y - layout.top) / layout.rowHeight);
  if (layer < 0 || layer >= layout.numLayers) return null;
  const nodeWidth = layout.gpusPerNode * layout.columnWidth + layout.nodeGap;
  const node = Math.floor((x - layout.left) / nodeWidth);
  const inside = Math.floor((x - layout.left - node * nodeWidth) / layout.columnWidth);
  const gpu = node * layout.gpusPerNode + Math.min(inside, layout.gpusPerNode - 1);
  return x < layout.left || gpu < 0 || gpu >= layout.numGpus ? null : { layer, gpu };
}

/** The cell an arrow key moves to. */
export function cellBeside(
  cell: HeatCell | null,
  key: string,
  { numGpus, numLayers }: Pick<HeatLayout, "numGpus" | "numLayers">,
  from: number,
): HeatCell | undefined {
  const steps: Readonly<Record<string, readonly [number, number]>> = {
    ArrowLeft: [0, -1],
    ArrowRight: [0, 1],
    ArrowUp: [-1, 0],
    ArrowDown: [1, 0],
    Home: [0, -numGpus],
    End: [0, numGpus],
    PageUp: [-10, 0],
    PageDown: [10, 0],
  };
  const step = steps[key];
  if (step === undefined) return undefined;
  if (cell === null) return { layer: Math.min(from, numLayers - 1), gpu: 0 };
  const within = (value: number, count: number): number => Math.min(count - 1, Math.max(0, value));
  return {
    layer: within(cell.layer + step[0], numLayers),
    gpu: within(cell.gpu + step[1], numGpus),
  };
}
