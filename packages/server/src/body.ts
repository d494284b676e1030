// Reads a request's JSON. The size is counted on the bytes that arrive, so that neither a missing
// nor a false Content-Length gets past the limit. What the JSON means is in schema/.

import type { z } from "zod";
import { ApiError, badRequest, ClientGoneError } from "./errors.ts";

/** @throws ApiError 413, 415 or 400 */
export async function readJson(request: Request, maxBodyBytes: number): Promise<unknown> {
  checkHeaders(request.headers);
  const declared = Number(request.headers.get("content-length") ?? 0);
  if (declared > maxBodyBytes) throw tooLarge(maxBodyBytes);
  const text = decodeUtf8(await readBytes(request, maxBodyBytes));
  try {
    return JSON.parse(text);
  } catch (cause) {
    const reason = cause instanceof Error ? cause.message : String(cause);
    throw new ApiError(400, `the request body is not valid JSON: ${reason}`, {
      code: "invalid_json",
      cause,
    });
  }
}

/**
 * A page of another origin can send a form or plain text without asking first; JSON it cannot. So
 * only JSON is taken, as long as browsers ask (CORS is off by default).
 */
function checkHeaders(headers: Headers): void {
  const type = headers.get("content-type") ?? "";
  const [essence = "", ...parameters] = type.split(";").map((part) => part.trim().toLowerCase());
  const charset = parameters.find((part) => part.startsWith("charset="))?.slice(8);
  const utf8 = charset === undefined || /^"?(utf-8|utf8|us-ascii)"?$/.test(charset);
  if (essence !== "application/json" || !utf8) {
    throw new ApiError(
      415,
      `the content type is ${type === "" ? "missing" : `'${type}'`}; expected application/json`,
      { code: "unsupported_media_type" },
    );
  }
  const encoding = headers.get("content-encoding") ?? "identity";
  if (encoding.toLowerCase() !== "identity") {
    throw new ApiError(415, `content encoding '${encoding}' is not supported; send plain JSON`, {
      code: "unsupported_media_type",
    });
  }
}

function tooLarge(maxBodyBytes: number): ApiError {
  return new ApiError(413, `the request body is larger than ${maxBodyBytes} bytes`, {
    code: "request_too_large",
    // What follows of the body is not read, so the connection cannot be used again.
    headers: { connection: "close" },
  });
}

async function readBytes(request: Request, maxBodyBytes: number): Promise<Uint8Array> {
  if (request.body === null) return new Uint8Array();
  const chunks: Uint8Array[] = [];
  let size = 0;
  const reader = request.body.getReader();
  try {
    for (;;) {
      const { done, value } = await reader.read();
      if (done) break;
      size += value.byteLength;
      if (size > maxBodyBytes) throw tooLarge(maxBodyBytes);
      chunks.push(value);
    }
  } catch (error) {
    if (error instanceof ApiError) throw error;
    // A body ends early for no other reason.
    throw new ClientGoneError();
  }
  return Buffer.concat(chunks);
}

function decodeUtf8(bytes: Uint8Array): string {
  try {
    return new TextDecoder("utf-8", { fatal: true }).decode(bytes);
  } catch (cause) {
    throw new ApiError(400, "the request body is not valid UTF-8", {
      code: "invalid_json",
      cause,
    });
  }
}

/** `["messages", 0, "role"]` as `messages[0].role`. */
export function paramPath(path: readonly PropertyKey[]): string {
  return path.reduce<string>((text, key) => {
    if (typeof key === "number") return `${text}[${key}]`;
    return text === "" ? String(key) : `${text}.${String(key)}`;
  }, "");
}

interface Issue {
  readonly path: readonly PropertyKey[];
  readonly message: string;
}

/** Of the alternatives of a union, the one that fitted furthest tells most. */
function plainIssue(issue: z.core.$ZodIssue): Issue {
  if (issue.code !== "invalid_union") return issue;
  const branches = issue.errors.map((branch) => branch[0]).filter((first) => first !== undefined);
  const deepest = branches.toSorted((a, b) => b.path.length - a.path.length)[0];
  if (deepest === undefined || deepest.path.length === 0) return issue;
  const inner = plainIssue(deepest);
  return { path: [...issue.path, ...inner.path], message: inner.message };
}

/** Checks JSON against a schema. @throws ApiError 400 naming the field. */
export function parseBody<T>(schema: z.ZodType<T>, json: unknown): T {
  const result = schema.safeParse(json);
  if (result.success) return result.data;
  const first = result.error.issues[0];
  if (first === undefined) throw new Error("zod failed without an issue", { cause: result.error });
  const { path, message } = plainIssue(first);
  const param = paramPath(path);
  if (param === "") throw new ApiError(400, `the request body: ${message}`);
  throw badRequest(param, `${param}: ${message}`);
}
