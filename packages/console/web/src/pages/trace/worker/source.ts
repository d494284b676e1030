// The bytes of a trace, counted as they come. Whether they are compressed is the reader's business.

import type { LoadState, TraceSpec } from "./messages.ts";

/** At most this many progress messages a second. */
const TELL_EVERY_MS = 50;

export interface OpenedSource {
  readonly title: string;
  readonly chunks: AsyncIterable<Uint8Array>;
}

/**
 * Opens a file or an address.
 *
 * @throws Error in words for the page: not found, refused, of another origin.
 */
export async function openSource(
  source: Exclude<TraceSpec, { kind: "example" }>,
  tell: (state: LoadState) => void,
): Promise<OpenedSource> {
  if (source.kind === "file") {
    const { file } = source;
    return { title: file.name, chunks: counted(file.stream(), file.size, tell) };
  }
  const url = new URL(source.url, self.location.href);
  if (url.origin !== self.location.origin) {
    throw new Error(
      `The address ${url.origin} is another origin; only files of this server are opened by ` +
        "address. Save the file and drop it here.",
    );
  }
  const response = await fetch(url).catch((error: unknown) => {
    throw new Error(`${url.pathname} cannot be reached: ${String(error)}`);
  });
  if (!response.ok || response.body === null) {
    throw new Error(`${url.pathname} cannot be read: the server answers ${response.status}`);
  }
  const total = Number(response.headers.get("content-length") ?? 0);
  return { title: titleOf(response, url), chunks: counted(response.body, total, tell) };
}

function titleOf(response: Response, url: URL): string {
  const given = /filename\*=UTF-8''([^;]+)/i.exec(
    response.headers.get("content-disposition") ?? "",
  )?.[1];
  return decodeURIComponent(given ?? url.pathname.split("/").at(-1) ?? "trace");
}

async function* counted(
  stream: ReadableStream<Uint8Array>,
  totalBytes: number,
  tell: (state: LoadState) => void,
): AsyncGenerator<Uint8Array> {
  const reader = stream.getReader();
  let bytes = 0;
  let toldAt = 0;
  try {
    for (;;) {
      const { done, value } = await reader.read();
      if (done) break;
      bytes += value.byteLength;
      const now = performance.now();
      if (now - toldAt >= TELL_EVERY_MS) {
        toldAt = now;
        tell({ phase: "reading", bytes, totalBytes });
      }
      yield value;
    }
  } finally {
    reader.cancel().catch(() => undefined);
  }
  tell({ phase: "arranging", bytes, totalBytes });
}
