// Prometheus' text exposition format, version 0.0.4. Knows nothing of the engine: what is measured
// is in metrics.ts.

export type Labels = Readonly<Record<string, string>>;

/** Counts at or below each bound and above the one before, the last for all that is larger. */
export interface HistogramData {
  readonly bounds: readonly number[];
  readonly counts: readonly number[];
  readonly sum: number;
  readonly count: number;
}

/** The content type of what `text()` gives. */
export const expositionContentType = "text/plain; version=0.0.4; charset=utf-8";

const METRIC_NAME = /^[a-zA-Z_:][a-zA-Z0-9_:]*$/;
const LABEL_NAME = /^[a-zA-Z_][a-zA-Z0-9_]*$/;

/** Collects metrics, each name once, and writes them. */
export class Exposition {
  readonly #lines: string[] = [];
  readonly #names = new Set<string>();

  gauge(name: string, help: string, samples: readonly Sample[]): void {
    this.#simple(name, "gauge", help, samples);
  }

  /** By convention the name ends in `_total`. */
  counter(name: string, help: string, samples: readonly Sample[]): void {
    this.#simple(name, "counter", help, samples);
  }

  histogram(name: string, help: string, labels: Labels, data: HistogramData): void {
    this.#open(name, "histogram", help);
    let cumulative = 0;
    for (const [i, bound] of data.bounds.entries()) {
      cumulative += data.counts[i] ?? 0;
      this.#sample(`${name}_bucket`, { ...labels, le: formatValue(bound) }, cumulative);
    }
    this.#sample(`${name}_bucket`, { ...labels, le: "+Inf" }, data.count);
    this.#sample(`${name}_sum`, labels, data.sum);
    this.#sample(`${name}_count`, labels, data.count);
  }

  text(): string {
    return this.#lines.map((line) => `${line}\n`).join("");
  }

  #simple(name: string, type: string, help: string, samples: readonly Sample[]): void {
    this.#open(name, type, help);
    for (const { labels = {}, value } of samples) this.#sample(name, labels, value);
  }

  #open(name: string, type: string, help: string): void {
    if (!METRIC_NAME.test(name)) throw new Error(`'${name}' is no name of a metric`);
    if (this.#names.has(name)) throw new Error(`metric ${name} is written twice`);
    this.#names.add(name);
    this.#lines.push(`# HELP ${name} ${help.replaceAll("\\", "\\\\").replaceAll("\n", "\\n")}`);
    this.#lines.push(`# TYPE ${name} ${type}`);
  }

  #sample(name: string, labels: Labels, value: number): void {
    const pairs = Object.entries(labels).map(([key, text]) => {
      if (!LABEL_NAME.test(key)) throw new Error(`'${key}' is no name of a label`);
      return `${key}="${escapeLabel(text)}"`;
    });
    const list = pairs.length === 0 ? "" : `{${pairs.join(",")}}`;
    this.#lines.push(`${name}${list} ${formatValue(value)}`);
  }
}

export interface Sample {
  readonly labels?: Labels;
  readonly value: number;
}

function escapeLabel(text: string): string {
  return text.replaceAll("\\", "\\\\").replaceAll('"', '\\"').replaceAll("\n", "\\n");
}

function formatValue(value: number): string {
  if (Number.isNaN(value)) return "NaN";
  if (Number.isFinite(value)) return String(value);
  return value > 0 ? "+Inf" : "-Inf";
}
