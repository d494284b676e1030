// What `dualpipe simulate` knows of times, links and memory, from flags and from a file.

import type { Communication, StageMemory, StageTimes } from "@open-infra/dualpipe";
import type { CliContext } from "./context.ts";
import { parseJson, readText } from "./json-input.ts";
import { UsageError } from "./parse.ts";

/** Values of the flags that say what a transfer costs. */
export interface LinkFlags {
  readonly latency?: number;
  readonly bandwidth?: number;
  readonly bytes?: number;
  readonly exclusiveLinks: boolean;
}

/** A link by flags: alike between all stages. */
type FlagLink = Omit<Communication, "bytes"> & { readonly bytes?: number };

/** Values of the flags that say how long things take. */
export interface TimeFlags extends LinkFlags {
  readonly timeF?: number;
  readonly timeB?: number;
  readonly timeI?: number;
  readonly timeW?: number;
  readonly fb?: number;
  readonly stageTimes?: string;
}

/** Everything but the schedule. */
export interface Costs {
  readonly times: StageTimes;
  readonly communication?: Communication;
  readonly memory?: StageMemory;
  /** The file that all or some of it is from. */
  readonly file?: string;
}

const timeFields = ["F", "B", "I", "W", "FB", "rankSlowdown"] as const;
const fieldsOf: Readonly<Record<string, readonly string[]>> = {
  communication: ["latency", "bandwidth", "bytes", "exclusiveLinks"],
  memory: ["activationBytes", "weightGradBytes", "parameterBytes"],
};
const allFields: readonly string[] = [...timeFields, ...Object.keys(fieldsOf)];

/** A misspelt field would be left out unsaid. */
function checkFields(name: string, value: unknown, known: readonly string[]): void {
  if (typeof value !== "object" || value === null || Array.isArray(value)) {
    throw new UsageError(`${name} holds no object; expected the fields ${known.join(", ")}`);
  }
  for (const [key, field] of Object.entries(value)) {
    if (!known.includes(key)) {
      throw new UsageError(`${name} has the field ${key}; known are ${known.join(", ")}`);
    }
    if (field === null) throw new UsageError(`${name}: ${key} is null; leave it out instead`);
  }
}

/**
 * The link that the flags describe; undefined where they say nothing.
 *
 * @throws UsageError for flags that would do nothing alone.
 */
export function linkOf(flags: LinkFlags): FlagLink | undefined {
  const { latency, bandwidth, bytes, exclusiveLinks } = flags;
  if ((bandwidth === undefined) !== (bytes === undefined)) {
    throw new UsageError("--bandwidth and --bytes go together");
  }
  if (exclusiveLinks && bandwidth === undefined) {
    const why = "without them a transfer takes no time on its link";
    throw new UsageError(`--exclusive-links needs --bandwidth and --bytes: ${why}`);
  }
  if (latency === undefined && bandwidth === undefined) return undefined;
  return {
    ...(latency !== undefined && { latency }),
    ...(bandwidth !== undefined && { bandwidth }),
    ...(bytes !== undefined && { bytes }),
    exclusiveLinks,
  };
}

/** The document of `--stage-times`; values are checked where they are used. */
async function readCosts(context: CliContext, file: string): Promise<Costs> {
  const input = await readText(context, file, 'expected {"F": 1, "B": 2, …}');
  const { name: from } = input;
  const document = parseJson(input);
  checkFields(from, document, allFields);
  const fields = document as Readonly<Record<string, unknown>>;
  for (const [name, known] of Object.entries(fieldsOf)) {
    if (name in fields) checkFields(`${from}: ${name}`, fields[name], known);
  }
  const times = Object.fromEntries(
    timeFields.filter((key) => key in fields).map((key) => [key, fields[key]]),
  ) as unknown as StageTimes;
  return {
    times,
    file: from,
    ...("communication" in fields && { communication: fields.communication as Communication }),
    ...("memory" in fields && { memory: fields.memory as StageMemory }),
  };
}

/**
 * Times, links and memory that the flags ask for.
 *
 * @throws UsageError if a file and flags say the same thing twice.
 */
export async function costsOf(context: CliContext, flags: TimeFlags): Promise<Costs> {
  const { timeF, timeB, timeI, timeW, fb, stageTimes } = flags;
  const communication = linkOf(flags);
  if (stageTimes !== undefined) {
    if ([timeF, timeB, timeI, timeW, fb].some((value) => value !== undefined)) {
      throw new UsageError("--stage-times brings all times: leave out -f, -b, -i, -w and --fb");
    }
    const costs = await readCosts(context, stageTimes);
    if (costs.communication !== undefined && communication !== undefined) {
      throw new UsageError("give links either in --stage-times or by flags");
    }
    return { ...costs, ...(communication && { communication }) };
  }
  const times: StageTimes = {
    F: timeF ?? 1,
    B: timeB ?? 2,
    ...(timeI !== undefined && { I: timeI }),
    ...(timeW !== undefined && { W: timeW }),
    ...(fb !== undefined && { FB: fb }),
  };
  return { times, ...(communication && { communication }) };
}
