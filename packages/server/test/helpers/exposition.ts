// Reads Prometheus' text format as strictly as Prometheus does, so that a test knows the metrics
// can be scraped.

export interface Family {
  readonly type: string;
  readonly help: string;
  readonly samples: {
    readonly name: string;
    readonly labels: Record<string, string>;
    readonly value: number;
  }[];
}

const SAMPLE = /^([a-zA-Z_:][\w:]*)(?:\{((?:[a-zA-Z_]\w*="(?:[^"\\\n]|\\["\\n])*",?)*)\})? (\S+)$/;
const LABEL = /([a-zA-Z_]\w*)="((?:[^"\\\n]|\\["\\n])*)"/g;

function readValue(text: string): number {
  if (text === "+Inf") return Number.POSITIVE_INFINITY;
  if (text === "NaN") return Number.NaN;
  const value = Number(text);
  if (text === "" || Number.isNaN(value)) throw new Error(`'${text}' is no value`);
  return value;
}

/** @throws on any line that is not of the format, and on a sample outside its family. */
export function parseExposition(text: string): Map<string, Family> {
  if (!text.endsWith("\n")) throw new Error("the last line does not end");
  const families = new Map<string, Family>();
  let current: { name: string; family: Family } | undefined;
  let help = "";
  for (const line of text.slice(0, -1).split("\n")) {
    const header = /^# (HELP|TYPE) (\S+) (.+)$/.exec(line);
    if (header !== null) {
      const [, kind, name = "", rest = ""] = header;
      if (kind === "HELP") help = rest;
      else {
        if (families.has(name)) throw new Error(`${name} comes twice`);
        current = { name, family: { type: rest, help, samples: [] } };
        families.set(name, current.family);
      }
      continue;
    }
    const match = SAMPLE.exec(line);
    if (match === null || current === undefined) throw new Error(`cannot read: ${line}`);
    const [, name = "", labelText = "", value = ""] = match;
    const suffix = name.slice(current.name.length);
    const allowed = current.family.type === "histogram" ? ["_bucket", "_sum", "_count"] : [""];
    if (!name.startsWith(current.name) || !allowed.includes(suffix)) {
      throw new Error(`${name} stands under ${current.name}`);
    }
    const labels = Object.fromEntries([...labelText.matchAll(LABEL)].map((m) => [m[1], m[2]]));
    current.family.samples.push({ name, labels, value: readValue(value) });
  }
  return families;
}
