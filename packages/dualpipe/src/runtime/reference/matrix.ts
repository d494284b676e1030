// A matrix product and GELU in plain TypeScript, for the reference stage. Sums run in double, in
// the order of k, and are rounded once to the array's type; a row's bits do not depend on other
// rows.

/** Rows of numbers of one type. */
export type Numbers = Float64Array | Float32Array;

/** A matrix over an array: element (i, j) lies at `i * rowStride + j * columnStride`. */
export interface MatrixView {
  readonly data: Numbers;
  readonly rowStride: number;
  readonly columnStride: number;
}

/** An array as `rows × columns` numbers in row-major order. */
export function rowMajor(data: Numbers, columns: number): MatrixView {
  return { data, rowStride: columns, columnStride: 1 };
}

/** The same numbers, rows and columns swapped. */
export function transposed({ data, rowStride, columnStride }: MatrixView): MatrixView {
  return { data, rowStride: columnStride, columnStride: rowStride };
}

/** A block's sums and the numbers they take fit the machine's sixteen registers. */
const blockRows = 2;
const blockColumns = 4;

/**
 * `out[i, j] = Σ a[i, k] · b[k, j]`, or `+=` the sum with `accumulate`; `out` is row-major
 * `m × n`.
 */
export function multiply(
  [m, n, k]: readonly [number, number, number],
  a: MatrixView,
  b: MatrixView,
  out: Numbers,
  accumulate = false,
): void {
  const target = { out, n, accumulate };
  for (let i = 0; i < m; i += blockRows) {
    for (let j = 0; j < n; j += blockColumns) {
      const whole = i + blockRows <= m && j + blockColumns <= n;
      if (whole) multiplyBlock(k, i, j, a, b, target);
      else
        multiplyEdge(
          k,
          [i, Math.min(m, i + blockRows)],
          [j, Math.min(n, j + blockColumns)],
          a,
          b,
          target,
        );
    }
  }
}

interface Target {
  readonly out: Numbers;
  readonly n: number;
  readonly accumulate: boolean;
}

function store({ out, n, accumulate }: Target, i: number, j: number, sum: number): void {
  const at = i * n + j;
  out[at] = accumulate ? (out[at] as number) + sum : sum;
}

function multiplyBlock(
  k: number,
  i: number,
  j: number,
  a: MatrixView,
  b: MatrixView,
  target: Target,
): void {
  const { data: x, rowStride: xi, columnStride: xk } = a;
  const { data: y, rowStride: yk, columnStride: yj } = b;
  let s00 = 0;
  let s01 = 0;
  let s02 = 0;
  let s03 = 0;
  let s10 = 0;
  let s11 = 0;
  let s12 = 0;
  let s13 = 0;
  for (let l = 0, p = i * xi, q = j * yj; l < k; l++, p += xk, q += yk) {
    const x0 = x[p] as number;
    const x1 = x[p + xi] as number;
    const y0 = y[q] as number;
    const y1 = y[q + yj] as number;
    const y2 = y[q + 2 * yj] as number;
    const y3 = y[q + 3 * yj] as number;
    s00 += x0 * y0;
    s01 += x0 * y1;
    s02 += x0 * y2;
    s03 += x0 * y3;
    s10 += x1 * y0;
    s11 += x1 * y1;
    s12 += x1 * y2;
    s13 += x1 * y3;
  }
  store(target, i, j, s00);
  store(target, i, j + 1, s01);
  store(target, i, j + 2, s02);
  store(target, i, j + 3, s03);
  store(target, i + 1, j, s10);
  store(target, i + 1, j + 1, s11);
  store(target, i + 1, j + 2, s12);
  store(target, i + 1, j + 3, s13);
}

/** What no whole block covers, sum by sum; the order of additions is that of a block. */
function multiplyEdge(
  k: number,
  [i0, i1]: readonly [number, number],
  [j0, j1]: readonly [number, number],
  a: MatrixView,
  b: MatrixView,
  target: Target,
): void {
  for (let i = i0; i < i1; i++) {
    for (let j = j0; j < j1; j++) {
      let sum = 0;
      for (let l = 0; l < k; l++) {
        const x = a.data[i * a.rowStride + l * a.columnStride] as number;
        sum += x * (b.data[l * b.rowStride + j * b.columnStride] as number);
      }
      store(target, i, j, sum);
    }
  }
}

/** 2 ÷ √π. */
const twoOverRootPi = 2 / Math.sqrt(Math.PI);

/**
 * The error function to about 1e-15. Below 3 by the series of erf(x)·exp(x²), whose terms are all
 * positive; above by the continued fraction of erfc.
 */
export function erf(x: number): number {
  const z = Math.abs(x);
  if (z > 6) return Math.sign(x);
  const square = z * z;
  if (z < 3) {
    let term = z;
    let sum = z;
    for (let i = 1; term > sum * 1e-17; i++) {
      term *= (2 * square) / (2 * i + 1);
      sum += term;
    }
    return Math.sign(x) * twoOverRootPi * Math.exp(-square) * sum;
  }
  let fraction = z;
  for (let i = 60; i > 0; i--) fraction = z + i / 2 / fraction;
  return Math.sign(x) * (1 - (twoOverRootPi / 2) * (Math.exp(-square) / fraction));
}

/** `x·Φ(x)`, exact GELU. */
export function gelu(x: number): number {
  return 0.5 * x * (1 + erf(x * Math.SQRT1_2));
}

/** Its derivative, `Φ(x) + x·φ(x)`. */
export function geluSlope(x: number): number {
  const density = Math.exp(-0.5 * x * x) / Math.sqrt(2 * Math.PI);
  return 0.5 * (1 + erf(x * Math.SQRT1_2)) + x * density;
}
