// Decompresses gzip with the platform's own DecompressionStream, in pieces, so that neither the
// compressed nor the plain bytes are ever whole in memory. It adds what a reader of files needs: an
// error that says how far the file was good. One gzip member, as the platform has it.

/** A gzip file is damaged, ends early, or goes on after its end. */
export class GzipProblem extends Error {
  /** Compressed bytes handed to the decompressor before the problem. */
  readonly byteOffset: number;

  constructor(message: string, byteOffset: number, options?: ErrorOptions) {
    super(message, options);
    this.byteOffset = byteOffset;
  }
}

/** Whether bytes begin as gzip does. */
export function isGzip(bytes: Uint8Array): boolean {
  return bytes[0] === 0x1f && bytes[1] === 0x8b;
}

/** What a platform says of the three ways to be wrong; browsers give a TypeError and a sentence. */
function describe(cause: unknown): string {
  const { code, message } = cause as { readonly code?: unknown; readonly message?: unknown };
  const said = `${String(code ?? "")} ${String(message ?? cause)}`;
  if (/trailing|junk|after the end|additional|extra/i.test(said)) {
    return "there is more after the end of the gzip data; of several members only one can be read";
  }
  if (/unexpected end|BUF_ERROR|truncated|incomplete|not.*complete/i.test(said)) {
    return "the gzip data ends early";
  }
  return "the gzip data is damaged";
}

/** Tells a failure of the source from one of whoever takes its pieces. */
async function* noting(
  pieces: AsyncIterable<Uint8Array>,
  note: (reason: unknown) => void,
): AsyncGenerator<Uint8Array> {
  try {
    yield* pieces;
  } catch (reason) {
    note(reason);
    throw reason;
  }
}

/**
 * Plain bytes of compressed pieces, in order.
 * @throws GzipProblem when the data cannot be decompressed any further; what came before it is good
 */
export async function* gunzip(pieces: AsyncIterable<Uint8Array>): AsyncGenerator<Uint8Array> {
  const stream = new DecompressionStream("gzip");
  const writer = stream.writable.getWriter();
  let bytesIn = 0;
  let sourceFailure: { readonly reason: unknown } | undefined;
  const feed = async (): Promise<void> => {
    const source = noting(pieces, (reason) => {
      sourceFailure = { reason };
    });
    try {
      for await (const piece of source) {
        bytesIn += piece.length;
        // A copy: whoever gave the piece may use its memory again.
        await writer.write(piece.slice());
      }
      await writer.close();
    } catch (reason) {
      await writer.abort(reason).catch(() => {});
    }
  };
  const fed = feed();
  const reader = stream.readable.getReader();
  try {
    for (;;) {
      const { done, value } = await reader.read();
      if (done) return;
      yield value;
    }
  } catch (cause) {
    if (sourceFailure !== undefined) throw sourceFailure.reason;
    throw new GzipProblem(describe(cause), bytesIn, { cause });
  } finally {
    // Also when the reading stops early: then the source may stop too.
    await reader.cancel().catch(() => {});
    await fed;
  }
}
