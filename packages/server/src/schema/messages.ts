// Chat messages as clients send them, and as chat templates expect them: content as one string,
// OpenAI's `developer` under the name that templates know.

import type { ChatMessage } from "@open-infra/model";
import { z } from "zod";
import { bounded } from "./common.ts";

interface TextPart {
  readonly type: "text";
  readonly text: string;
}

/** One message, checked; what else it carries goes to the template as it came. */
export interface Message {
  readonly role: "system" | "developer" | "user" | "assistant" | "tool";
  readonly content?: string | readonly TextPart[] | null | undefined;
  readonly [key: string]: unknown;
}

const textPart = z.object({
  type: z.literal("text", { error: "only content parts of type 'text' are supported" }),
  text: z.string(),
});

const content = z.union([z.string(), z.array(textPart)], {
  error: "expected a string or an array of text parts",
});

const toolCall = z.looseObject({
  id: z.string().nullish(),
  type: z.literal("function"),
  function: z.looseObject({ name: z.string(), arguments: z.string() }),
});

const plain = { content, name: z.string().nullish() };

const message = z.discriminatedUnion(
  "role",
  [
    z.looseObject({ role: z.literal("system"), ...plain }),
    z.looseObject({ role: z.literal("developer"), ...plain }),
    z.looseObject({ role: z.literal("user"), ...plain }),
    z.looseObject({
      role: z.literal("assistant"),
      name: z.string().nullish(),
      content: content.nullish(),
      tool_calls: z.array(toolCall).nullish(),
    }),
    z.looseObject({ role: z.literal("tool"), ...plain, tool_call_id: z.string() }),
  ],
  { error: "expected a message whose role is system, developer, user, assistant or tool" },
);

/** Messages, their parts and their tool calls together. */
const MAX_ITEMS = 8192;

function fewItems(value: unknown): boolean {
  if (!Array.isArray(value)) return true;
  let items = value.length;
  for (const entry of items > MAX_ITEMS ? [] : value) {
    const { content, tool_calls: calls } = (entry ?? {}) as Record<string, unknown>;
    if (Array.isArray(content)) items += content.length;
    if (Array.isArray(calls)) items += calls.length;
  }
  return items <= MAX_ITEMS;
}

/** At least one message. */
export const messages: z.ZodType<readonly Message[]> = bounded(
  z.array(message).min(1),
  fewItems,
  `expected at most ${MAX_ITEMS} messages, content parts and tool calls together`,
);

/** For the template. An assistant's turn may be only tool calls; its content is then null. */
export function templateMessages(parsed: readonly Message[]): ChatMessage[] {
  return parsed.map((entry): ChatMessage => {
    const role = entry.role === "developer" ? "system" : entry.role;
    const given = Object.entries(entry).filter(([, value]) => value != null);
    return { ...Object.fromEntries(given), role, content: joinContent(entry.content) };
  });
}

function joinContent(given: Message["content"]): string | null {
  if (given == null) return null;
  return typeof given === "string" ? given : given.map((part) => part.text).join("");
}
