// Requests to an application without a socket, and what tests read of answers.

import { demoModelDir } from "@open-infra/demo-model";
import { loadTokenizer, type Tokenizer } from "@open-infra/model";
import { expect } from "vitest";
import { createApp, type ErrorBody, type ServerOptions } from "../../src/index.ts";
import { type Script, ScriptedEngine } from "./scripted-engine.ts";

let shared: Tokenizer | undefined;

/** The demo model's tokenizer, opened once a process. */
export function demoTokenizer(): Tokenizer {
  shared ??= loadTokenizer(demoModelDir);
  return shared;
}

export type Fetch = (path: string, init?: RequestInit) => Promise<Response>;

export interface TestApp {
  readonly engine: ScriptedEngine;
  readonly fetch: Fetch;
  readonly post: (path: string, body: unknown, init?: RequestInit) => Promise<Response>;
}

/** An application that is ready. */
export async function testApp(script?: Script, options: ServerOptions = {}): Promise<TestApp> {
  const engine = new ScriptedEngine(script);
  const app = createApp({
    engine,
    tokenizer: demoTokenizer(),
    options: { logLevel: "silent", ...options },
  });
  const request: Fetch = async (path, init) => await app.request(path, init);
  // Parts that are no promises are there after one turn of the loop.
  await new Promise(setImmediate);
  return { engine, fetch: request, post: poster(request) };
}

export function poster(request: Fetch): TestApp["post"] {
  return (path, body, init = {}) =>
    request(path, {
      method: "POST",
      body: typeof body === "string" ? body : JSON.stringify(body),
      ...init,
      headers: { "content-type": "application/json", ...init.headers },
    });
}

/** Checks OpenAI's error shape and gives its content. */
export async function errorOf(response: Response, status: number): Promise<ErrorBody["error"]> {
  const text = await response.text();
  expect({ status: response.status, text }).toMatchObject({ status });
  expect(response.headers.get("content-type")).toContain("application/json");
  const { error } = JSON.parse(text) as ErrorBody;
  expect(Object.keys(error).toSorted()).toEqual(["code", "message", "param", "type"]);
  expect(error.message).not.toBe("");
  expect(text).not.toMatch(/node_modules|\.ts:\d|\n\s+at /);
  return error;
}

interface Logprobs {
  readonly content: readonly unknown[];
  readonly tokens: readonly string[];
  readonly token_logprobs: readonly (number | null)[];
  readonly top_logprobs: readonly (Record<string, number> | null)[];
  readonly text_offset: readonly number[];
}

/** A choice of either endpoint, whole or in a chunk; a test reads the fields its endpoint has. */
export interface Choice {
  readonly index: number;
  readonly text: string;
  readonly message: { readonly role: string; readonly content: string };
  readonly delta: { readonly role?: string; readonly content?: string };
  readonly logprobs: Logprobs | null;
  readonly finish_reason: string | null;
}

/** An answer or a chunk. */
export interface Answer {
  readonly id: string;
  readonly object: string;
  readonly choices: readonly Choice[];
  readonly usage?: Record<string, unknown> | null;
}

/** The JSON of an answer, under the type the test expects. */
export async function jsonOf<T = Answer>(response: Response | Promise<Response>): Promise<T> {
  return (await (await response).json()) as T;
}

/** What an event stream holds: parsed `data:` lines, comments, and whether it was completed. */
export function readSse(text: string): {
  readonly chunks: Answer[];
  readonly comments: number;
  readonly done: boolean;
} {
  const events = text.split("\n\n").filter((event) => event !== "");
  expect(text === "" || text.endsWith("\n\n")).toBe(true);
  const data = events.filter((e) => e.startsWith("data: ")).map((e) => e.slice(6));
  const comments = events.filter((e) => e.startsWith(":")).length;
  expect(data.length + comments).toBe(events.length);
  const done = data.at(-1) === "[DONE]";
  const chunks = (done ? data.slice(0, -1) : data).map((entry) => JSON.parse(entry));
  return { chunks, comments, done };
}
