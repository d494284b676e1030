// The server's options, checked once. Nothing past this file sees an undefined default. The command
// line's flags are in packages/cli.

import type { Logger } from "pino";
import { z } from "zod";
import { ServerOptionError } from "./errors.ts";

/** The built web app, or the sentence to show in its place. */
export type ConsoleFiles = { readonly dir: string } | { readonly missing: string };

/** How far loading has come, for `/health`. */
export interface LoadProgress {
  readonly phase: string;
  readonly done: number;
  readonly total: number;
}

export type LogLevel = "silent" | "error" | "warn" | "info" | "debug";

export interface ServerOptions {
  /** Bearer keys that open `/v1`, `/tokenize`, `/detokenize` and `/api`. @default open to all */
  readonly apiKey?: string | readonly string[];
  /** Browser origins that may read answers, e.g. `http://localhost:5173`; `*` for all. @default none */
  readonly corsOrigins?: readonly string[];
  /**
   * Names in the Host header that are accepted besides `localhost` and addresses, when listening on
   * a loopback address; `*` for all. Others are refused, so that a web page cannot reach the server
   * by pointing its own name at 127.0.0.1. @default none
   */
  readonly allowedHosts?: readonly string[];
  /** Largest request body in bytes. @default 4 MiB */
  readonly maxBodyBytes?: number;
  /** Most choices of one request: prompts times `n`. @default 128 */
  readonly maxChoices?: number;
  /** Silence on an event stream after which a comment is sent, in milliseconds. @default 15000 */
  readonly keepAliveMs?: number;
  /** How long `close()` lets running requests finish, in milliseconds. @default 30000 */
  readonly drainTimeoutMs?: number;
  /** Other names the model answers to. @default none */
  readonly modelAliases?: readonly string[];
  /** The web app served at `/`; a function is asked at every request. @default a page saying so */
  readonly console?: ConsoleFiles | (() => ConsoleFiles);
  /** Asked by `/health` while the engine loads. */
  readonly loadProgress?: () => LoadProgress | undefined;
  /** JSON lines on stderr. @default "warn" */
  readonly logLevel?: LogLevel;
  /** A logger to use instead of one made from `logLevel`. */
  readonly logger?: Logger;
  /** Put prompts into the request log (level debug). @default false */
  readonly logPrompts?: boolean;
  /** Texts longer than this are tokenised in a worker thread. @default 16384 */
  readonly inlineEncodeChars?: number;
}

/** Options with every default filled in. */
export interface CheckedOptions {
  readonly apiKeys: readonly string[];
  readonly corsOrigins: readonly string[];
  readonly allowedHosts: readonly string[];
  readonly maxBodyBytes: number;
  readonly maxChoices: number;
  readonly keepAliveMs: number;
  readonly drainTimeoutMs: number;
  readonly modelAliases: readonly string[];
  readonly console: () => ConsoleFiles;
  readonly loadProgress: () => LoadProgress | undefined;
  readonly logLevel: LogLevel;
  readonly logger: Logger | undefined;
  readonly logPrompts: boolean;
  readonly inlineEncodeChars: number;
}

const origin: z.ZodType<string> = z.string().refine(isOrigin, {
  error: "expected '*' or an origin such as https://example.org, without a path",
});

/** About the longest delay a timer of Node takes; more would fire at once. */
const MAX_TIMER_MS = 2 ** 31 - 10_000;

const schema = z.object({
  // A key of spaces or of nothing would lock the door and leave the key in it.
  apiKey: z
    .union([z.string(), z.array(z.string())])
    .transform((keys) => (typeof keys === "string" ? [keys] : keys))
    .refine((keys) => keys.length > 0 && keys.every((key) => /^[\x21-\x7e]+$/.test(key)), {
      error: "expected one or more printable ASCII characters without spaces",
    })
    .default([]),
  corsOrigins: z.array(origin).default([]),
  allowedHosts: z.array(z.string().min(1)).default([]),
  maxBodyBytes: z
    .int()
    .min(1)
    .max(2 ** 29)
    .default(4 * 2 ** 20),
  maxChoices: z.int().min(1).max(4096).default(128),
  keepAliveMs: z.int().min(1).max(MAX_TIMER_MS).default(15_000),
  drainTimeoutMs: z.number().min(0).max(MAX_TIMER_MS).default(30_000),
  modelAliases: z.array(z.string().min(1)).default([]),
  logLevel: z.enum(["silent", "error", "warn", "info", "debug"]).default("warn"),
  logPrompts: z.boolean().default(false),
  inlineEncodeChars: z.int().min(0).default(16_384),
});

function isOrigin(text: string): boolean {
  if (text === "*") return true;
  return URL.canParse(text) && new URL(text).origin === text;
}

/** @throws ServerOptionError naming the option and what is allowed. */
export function checkOptions(options: ServerOptions): CheckedOptions {
  const result = schema.safeParse(options);
  if (!result.success) {
    const issue = result.error.issues[0];
    throw new ServerOptionError(issue?.path.join(".") ?? "?", issue?.message ?? "is not valid");
  }
  const { apiKey, ...rest } = result.data;
  const files = options.console ?? { missing: "this server was started without the web console" };
  return {
    ...rest,
    apiKeys: apiKey,
    console: typeof files === "function" ? files : () => files,
    loadProgress: options.loadProgress ?? (() => undefined),
    logger: options.logger,
  };
}
