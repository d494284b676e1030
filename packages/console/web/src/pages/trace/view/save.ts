// Saves the open trace as a plain JSON file, which other viewers open. Nothing leaves the machine.

import { savedName } from "./texts.ts";

/** The name of the file as it was saved. */
export async function saveTrace(
  file: Blob | { readonly url: string },
  title: string,
): Promise<string> {
  const blob = file instanceof Blob ? file : await (await fetch(file.url)).blob();
  const packed = await isGzip(blob);
  const name = savedName(title);
  const plain = packed ? await unpack(blob) : blob;
  const address = URL.createObjectURL(plain);
  const link = document.createElement("a");
  link.href = address;
  link.download = name;
  link.click();
  // The browser has taken hold of the data once it has begun to save.
  setTimeout(() => URL.revokeObjectURL(address), 60_000);
  return name;
}

async function isGzip(blob: Blob): Promise<boolean> {
  const [first, second] = new Uint8Array(await blob.slice(0, 2).arrayBuffer());
  return first === 0x1f && second === 0x8b;
}

function unpack(blob: Blob): Promise<Blob> {
  return new Response(blob.stream().pipeThrough(new DecompressionStream("gzip"))).blob();
}
