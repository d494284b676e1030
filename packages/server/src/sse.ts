// An event stream in OpenAI's manner: `data: {json}` a chunk, an error as one more event, and
// `data: [DONE]` only when everything was sent. It pulls: a client that reads slowly slows its own
// stream down and nobody else's.

import { type ApiError, toApiError } from "./errors.ts";

export interface SseOptions {
  /** Silence after which a comment keeps the connection open. */
  readonly keepAliveMs: number;
  /** The client closed the stream. */
  readonly onGone: () => void;
  /** The stream ended, by itself or by an error that the client was told. */
  readonly onEnd?: (error: ApiError | undefined) => void;
  /** End with `data: [DONE]`. @default true */
  readonly done?: boolean;
}

const headers = {
  "content-type": "text/event-stream; charset=utf-8",
  "cache-control": "no-cache",
  // nginx would collect the stream before passing it on.
  "x-accel-buffering": "no",
};

const late = Symbol("late");

/** The promise's value, or `late` when it takes longer than `ms`. */
async function within<T>(promise: Promise<T>, ms: number): Promise<T | typeof late> {
  let timer: NodeJS.Timeout | undefined;
  const timeout = new Promise<typeof late>((resolve) => {
    timer = setTimeout(() => resolve(late), ms);
  });
  try {
    return await Promise.race([promise, timeout]);
  } finally {
    clearTimeout(timer);
  }
}

/**
 * A response that streams the chunks. It begins with the first chunk or the first keep-alive,
 * whichever comes first, so that what fails before still gets its own status.
 *
 * @throws what the first chunk throws.
 */
export async function sseResponse(
  chunks: AsyncGenerator<unknown, void, void>,
  options: SseOptions,
): Promise<Response> {
  const encoder = new TextEncoder();
  let pending = chunks.next();
  const event = (data: string): Uint8Array => encoder.encode(`data: ${data}\n\n`);
  await within(pending, options.keepAliveMs);
  const body = new ReadableStream<Uint8Array>(
    {
      pull: async (controller) => {
        try {
          const result = await within(pending, options.keepAliveMs);
          if (result === late) controller.enqueue(encoder.encode(": keep-alive\n\n"));
          else if (result.done) {
            if (options.done ?? true) controller.enqueue(event("[DONE]"));
            controller.close();
            options.onEnd?.(undefined);
          } else {
            pending = chunks.next();
            // A failure is met at the next pull; until then it must not count as unhandled.
            pending.catch(() => {});
            controller.enqueue(event(JSON.stringify(result.value)));
          }
        } catch (error) {
          const failure = toApiError(error);
          controller.enqueue(event(JSON.stringify(failure.body)));
          controller.close();
          options.onEnd?.(failure);
        }
      },
      cancel: () => {
        options.onGone();
        // Ends the generator when the event it waits for has come or been given up.
        chunks.return().catch(() => {});
      },
    },
    { highWaterMark: 0 },
  );
  pending.catch(() => {});
  return new Response(body, { headers });
}
